"""The rehearsal Hub: a real HTTP server that answers like the Hub, on this machine only.

Point the unmodified ``huggingface_hub`` client (or ``hf``, or ``from_pretrained``) at it with
``HF_ENDPOINT=http://127.0.0.1:PORT`` and publish for practice: repositories with history, large
files, branches, tags, visibility and collections, all kept in one folder on disk.

Where things are:

==================  ===============================================================
``server.py``       serving, and why only loopback
``process.py``      a server in a process of its own, for tests
``app.py``          the table of routes, and the seam at which faults are inserted
``faults/``         how it can be made to fail, from a script or from Python
``call.py``         one request as the handlers see it
``store.py``        the folder on disk: its layout and its promise
``repository.py``   one repository: settings, commits, refs
``accounts.py``     users, organisations, tokens; who may do what
==================  ===============================================================

The other modules are the endpoints, one subject a file.
"""

from fluxconv.hub.rehearsal.app import create_app
from fluxconv.hub.rehearsal.limits import Limits
from fluxconv.hub.rehearsal.process import RehearsalHub, running, start
from fluxconv.hub.rehearsal.server import ServerError, serve

__all__ = [
    "Limits",
    "RehearsalHub",
    "ServerError",
    "create_app",
    "running",
    "serve",
    "start",
]
