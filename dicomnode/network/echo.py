"""Ask another node whether it is there, by C-ECHO."""

from __future__ import annotations

import time

from pynetdicom import build_context
from pynetdicom.sop_class import Verification

from dicomnode.errors import Transient
from dicomnode.network.send import Address, connect


def echo(address: Address, *, calling_ae: str) -> float:
    """Seconds from the call to the answer; raises Transient with the reason if there is none."""
    start = time.monotonic()
    association = connect(address, [build_context(Verification)], calling_ae=calling_ae)
    try:
        reply = association.send_c_echo()
        if "Status" not in reply or reply.Status != 0x0000:
            raise Transient(f"{address} accepted the association but did not answer the C-ECHO")
        return time.monotonic() - start
    except RuntimeError as error:  # pynetdicom: the association ended before the request
        raise Transient(f"the association with {address} broke off") from error
    finally:
        if association.is_established:
            association.release()
