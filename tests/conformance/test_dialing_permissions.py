"""Dialing permissions with every SDK."""

import json

from tests.conformance.sdk import Sdk


def test_countries_and_what_is_permitted_there(sdk: Sdk) -> None:
    permissions = sdk.voice.v1.dialing_permissions
    country = permissions.countries("LV").fetch()
    assert (country.name, country.continent, country.country_codes) == ("Latvia", "EUROPE", ["+371"])
    assert (country.low_risk_numbers_enabled, country.high_risk_special_numbers_enabled) == (True, False)
    assert [one.iso_code for one in permissions.countries.list(iso_code="LV")] == ["LV"]
    prefixes = permissions.countries("LV").highrisk_special_prefixes.list()
    assert [one.prefix for one in prefixes] == ["+37181", "+3719"]
    wanted = [{"iso_code": "LV", "low_risk_numbers_enabled": "false", "high_risk_special_numbers_enabled": "true"}]
    made = permissions.bulk_country_updates.create(update_request=json.dumps(wanted))
    assert (made.update_count, made.update_request) == (1, "accepted")
    changed = permissions.countries("LV").fetch()
    assert (changed.low_risk_numbers_enabled, changed.high_risk_special_numbers_enabled) == (False, True)
    wanted[0] |= {"low_risk_numbers_enabled": "true", "high_risk_special_numbers_enabled": "false"}
    permissions.bulk_country_updates.create(update_request=json.dumps(wanted))


def test_whether_subaccounts_inherit(sdk: Sdk) -> None:
    settings = sdk.voice.v1.dialing_permissions.settings()
    assert settings.fetch().dialing_permissions_inheritance is True
    assert settings.update(dialing_permissions_inheritance=False).dialing_permissions_inheritance is False
    assert settings.update(dialing_permissions_inheritance=True).dialing_permissions_inheritance is True
