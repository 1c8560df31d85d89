# shellcheck shell=bash
# What the launchers that have verbs share; they source it. A command line is `verb --flag=value --switch -- command`.

usage="see the top of launch/$(basename "$0")"

say() { echo "== $1"; }

fail() { # message, exit code
  echo "error: $1" >&2
  exit "${2:-1}"
}

read_words() { # its flags, its switches, the words: sets verb, command, and for each flag the variable of its name
  local flags=" $1 from to " switches=" $2 dry_run yes " word flag
  shift 2
  verb=${1:-} from='' to='' dry_run='' yes='' command=()
  while [ $# -gt 1 ]; do
    shift
    word=$1 flag=${1#--}
    flag=${flag%%=*}
    case $word in
      --) command=("${@:2}") && break ;;
      --*=*) [[ $flags == *" $flag "* ]] && printf -v "$flag" %s "${word#*=}" ;;
      *) [[ $switches == *" ${word#--} "* ]] && printf -v "$flag" 1 ;;
    esac || fail "unknown argument $word; $usage" 2
  done
}

need() { # flags
  local flag
  for flag in "$@"; do
    [ -n "${!flag}" ] || fail "--$flag is missing; $usage" 2
  done
}

need_command() { # what one begins with
  [ ${#command[@]} -gt 0 ] || fail "what to run is missing: … $verb … -- $1 --config=…" 2
}

ask() { # question
  [ -z "$yes$dry_run" ] || return 0
  local answer=''
  read -r -p "$1 [y/N] " answer || true
  case $answer in y | Y | yes) ;; *) fail "nothing was done; --yes answers beforehand" ;; esac
}

act() { # command: everything that changes something goes through here
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

fetch() {
  need from to
  act mkdir -p "$to"
  act gcloud storage rsync --recursive "$from" "$to"
}
