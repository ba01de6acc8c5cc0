"""SIP credential lists: users that may call a domain or register with it. Source: spec
`api.v2010.account.sip.sip_credential_list`; the error dictionary (21239-21241)."""

from trunkline.api.sip_lists import ListKind, routes
from trunkline.model.sid import SIP_CREDENTIAL_LIST
from trunkline.model.sip_domain import SipCredential, SipCredentialList

MAX_LISTS = 100
"""Credential lists of an account (21239)."""

KIND = ListKind(
    record=SipCredentialList,
    prefix=SIP_CREDENTIAL_LIST,
    collection="CredentialLists",
    key="credential_lists",
    element="CredentialList",
    entry=SipCredential,
    entries="Credentials",
    parent_field="credential_list_sid",
    max_name=64,
    max_lists=MAX_LISTS,
    too_many=21239,
    invalid=21240,
    in_use=21241,
)

ROUTES = routes(KIND)
