"""pynetdicom, set up once for the process.

The library knows these options only as module globals. They are set here, at import, by every
module that uses the library, and never changed afterwards.
"""

from __future__ import annotations

import logging

from pydicom import uid
from pynetdicom import AE, _config

from dicom_node import __version__

# Its own event handlers write AE data and identifiers to the log, and cost time
_config.LOG_HANDLER_LEVEL = "none"
# A file is sent as its stored bytes; without this it is decoded and encoded again
_config.STORE_SEND_CHUNKED_DATASET = True
# Its messages and tracebacks can quote what the peer sent: nothing of it reaches a log
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)

IMPLEMENTATION_CLASS_UID = uid.UID("2.25.318044128690466021157316254712063741523")
"""PS3.7 D.3.3.2.1: names this implementation to its peers (UUID-derived, PS3.5 B.2)."""
IMPLEMENTATION_VERSION_NAME = f"PROSTATE_{__version__}"[:16]


def application_entity(ae_title: str) -> AE:
    """Return an application entity that names this implementation."""
    entity = AE(ae_title=ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return entity
