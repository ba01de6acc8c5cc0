"""SigningKeys: the older name of API keys; both show the same keys. Source: spec `api.v2010.account.signing_key`."""

from trunkline.api import keys

ROUTES = keys.routes("SigningKeys", "signing_keys", "SigningKey")
