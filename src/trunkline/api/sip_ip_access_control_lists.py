"""SIP IP access control lists: addresses that may call a domain. Source: spec
`api.v2010.account.sip.sip_ip_access_control_list`; the error dictionary (21235, 21236, 21255)."""

from trunkline.api.sip_lists import ListKind, routes
from trunkline.model.sid import SIP_IP_ACCESS_CONTROL_LIST
from trunkline.model.sip_domain import SipIpAccessControlList, SipIpAddress

MAX_LISTS = 1000
"""IP access control lists of an account (21255)."""

KIND = ListKind(
    record=SipIpAccessControlList,
    prefix=SIP_IP_ACCESS_CONTROL_LIST,
    collection="IpAccessControlLists",
    key="ip_access_control_lists",
    element="IpAccessControlList",
    entry=SipIpAddress,
    entries="IpAddresses",
    parent_field="ip_access_control_list_sid",
    max_name=255,
    max_lists=MAX_LISTS,
    too_many=21255,
    invalid=21235,
    in_use=21236,
)

ROUTES = routes(KIND)
