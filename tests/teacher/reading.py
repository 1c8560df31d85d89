"""A response as the client reads it: what the tests of responses share."""

import json

from lema_jax.teacher import response
from lema_jax.teacher.response import Answer, Failure


def read(value, status: int = 200, **headers) -> Answer | Failure:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return response.read(status, {name.replace("_", "-"): said for name, said in headers.items()}, body)
