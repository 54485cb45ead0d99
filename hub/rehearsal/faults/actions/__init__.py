"""Every way in which the rehearsal Hub can fail, by its name in a script.

A further one is a file with a class, and its row here.
"""

from __future__ import annotations

from fluxconv.hub.rehearsal.faults.actions.base import Action
from fluxconv.hub.rehearsal.faults.actions.broken_xet import BrokenXet
from fluxconv.hub.rehearsal.faults.actions.corrupted_file import CorruptedFile
from fluxconv.hub.rehearsal.faults.actions.cut_body import CutBody
from fluxconv.hub.rehearsal.faults.actions.expired_token import ExpiredToken
from fluxconv.hub.rehearsal.faults.actions.hostile_names import HostileNames
from fluxconv.hub.rehearsal.faults.actions.huge_answer import HugeAnswer
from fluxconv.hub.rehearsal.faults.actions.lost_reply import LostReply
from fluxconv.hub.rehearsal.faults.actions.redirect import Redirect
from fluxconv.hub.rehearsal.faults.actions.reset_upload import ResetUpload
from fluxconv.hub.rehearsal.faults.actions.slow_headers import SlowHeaders
from fluxconv.hub.rehearsal.faults.actions.sneaked_commit import SneakedCommit
from fluxconv.hub.rehearsal.faults.actions.stalled_answer import StalledAnswer
from fluxconv.hub.rehearsal.faults.actions.stalled_body import StalledBody
from fluxconv.hub.rehearsal.faults.actions.stalled_upload import StalledUpload
from fluxconv.hub.rehearsal.faults.actions.status import Status
from fluxconv.hub.rehearsal.faults.actions.trickle import Trickle
from fluxconv.hub.rehearsal.faults.actions.wrong_etag import WrongEtag

_ALL: tuple[type[Action], ...] = (
    Status,
    LostReply,
    StalledAnswer,
    StalledBody,
    CutBody,
    Trickle,
    SlowHeaders,
    ResetUpload,
    StalledUpload,
    WrongEtag,
    HugeAnswer,
    Redirect,
    HostileNames,
    ExpiredToken,
    SneakedCommit,
    CorruptedFile,
    BrokenXet,
)

ACTIONS: dict[str, type[Action]] = {str(a.model_fields["do"].default): a for a in _ALL}

__all__ = [
    "ACTIONS",
    "Action",
    "BrokenXet",
    "CorruptedFile",
    "CutBody",
    "ExpiredToken",
    "HostileNames",
    "HugeAnswer",
    "LostReply",
    "Redirect",
    "ResetUpload",
    "SlowHeaders",
    "SneakedCommit",
    "StalledAnswer",
    "StalledBody",
    "StalledUpload",
    "Status",
    "Trickle",
    "WrongEtag",
]
