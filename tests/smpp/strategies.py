"""Hypothesis strategies for every PDU, within the limits of the wire."""

from typing import Any

from hypothesis import strategies as st

from trunkline.smpp import codec
from trunkline.smpp import pdu as p

octet = st.integers(0, 255)


def text(limit: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=limit - 1)


tlvs = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=300)), max_size=4).map(tuple)
address = st.builds(p.Address, octet, octet, text(21))

_KINDS: dict[int, st.SearchStrategy[Any]] = {
    codec._OCTET: octet,
    codec._MESSAGE: st.binary(max_size=254),
    codec._TLVS: tlvs,
    codec._DESTINATIONS: st.lists(address | text(21), max_size=5).map(tuple),
    codec._UNSUCCESSFUL: st.lists(st.tuples(address, st.integers(0, 0xFFFFFFFF)), max_size=3).map(tuple),
}


def _from_layout(kind: type[p.Pdu], layout: codec.Layout) -> st.SearchStrategy[p.Pdu]:
    return st.builds(kind, **{name: _KINDS[k] if k in _KINDS else text(k) for name, k in layout})


_SM = codec._SOURCE + codec._DESTINATION + codec._AFTER_ADDRESSES
submit_sm = _from_layout(p.SubmitSm, (("service_type", 6), *_SM))
deliver_sm = _from_layout(p.DeliverSm, (("service_type", 6), *_SM))
_MESSAGE_RESP: codec.Layout = (("message_id", 65), ("tlvs", codec._TLVS))

any_pdu: st.SearchStrategy[p.Pdu] = st.one_of(
    submit_sm,
    deliver_sm,
    *[_from_layout(kind, _MESSAGE_RESP) for kind in (p.SubmitSmResp, p.DeliverSmResp, p.DataSmResp)],
    *[_from_layout(kind, layout) for kind, layout in codec.LAYOUTS.items()],
)
