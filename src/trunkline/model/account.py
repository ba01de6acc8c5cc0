"""Accounts and API keys, as the `Database` keeps them."""

from typing import ClassVar

from trunkline.model.record import Record


class Account(Record, kw_only=True):
    """An account or subaccount (spec `api.v2010.account`)."""

    TABLE: ClassVar[str] = "accounts"

    friendly_name: str = ""
    status: str = "active"
    """`active`, `suspended` or `closed`."""
    type: str = "Full"
    """`Full` or `Trial`."""
    owner_account_sid: str = ""
    """The parent's SID; its own for a main account."""
    auth_token: str = ""
    """Encrypted at rest (see trunkline.storage.secrets); in clear in memory, webhooks are signed with it."""
    secondary_auth_token: str = ""
    test_account_sid: str = ""
    """The SID of this account's test credentials (magic numbers, nothing sent)."""
    test_auth_token: str = ""
    credit: str = "0"
    """What was paid in, decimal; Balance is this less the usage."""
    price_unit: str = "USD"
    retention_days: int = 0
    """Days that landed messages are kept; 0: as `archive.retention_days` says."""
    messages_per_second: int = 0
    """Segments that all of its senders together send in a second; 0: no limit but the senders' own."""
    smpp_system_id: str | None = None
    """Unique; set when the account's own SMPP client may bind."""
    smpp_password: str = ""
    smpp_max_binds: int = 2
    verify_tls: bool = True
    """Whether webhooks' certificates are checked (11237)."""


class ApiKey(Record, kw_only=True):
    """An API key; only the secret's hash is kept."""

    TABLE: ClassVar[str] = "api_keys"

    friendly_name: str = ""
    secret_hash: str = ""
    """hex HMAC-SHA256 of the secret (the secret has 128 bits of entropy: no slow hash is needed)."""
    main: bool = False
    """Main keys may use /Accounts and /Keys; standard keys get 20003."""
