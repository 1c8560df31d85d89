# shellcheck shell=bash
# Sourced by the scripts that run the loop: a stage's headline, and its binary.
export TRANSFORMERS_VERBOSITY=error # it warns that PyTorch is not here, which nothing needs
# libtpu, which the tests install for its compiler, complains at every start on a machine without any accelerator.
compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/*' >/dev/null || compgen -G '/dev/nvidia*' >/dev/null ||
  [ -e /dev/kfd ] || export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}

stage() { echo; echo "== $1"; }
lema() { .venv/bin/python -m "lema_jax.$1" "${@:2}"; }
