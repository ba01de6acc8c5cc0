"""The user of the Contact that is registered."""

from trunkline.settings import Trunk
from trunkline.voice.trunk_contact import HEX_CHARACTERS, contact_user, is_secret


def test_it_is_stable_and_its_own_for_each_trunk_and_server():
    one, two = Trunk(name="one", register=True), Trunk(name="two", register=True)
    users = {contact_user(one, b"k"), contact_user(two, b"k"), contact_user(one, b"other")}
    assert len(users) == 3
    assert contact_user(one, b"k") == contact_user(Trunk(name="one", username="x", password="y"), b"k")
    name, _, secret = contact_user(one, b"k").partition("-")
    assert (name, len(secret)) == ("one", HEX_CHARACTERS)


def test_what_the_operator_chose_is_no_secret():
    chosen = Trunk(name="one", register=True, contact_user="4930123")
    assert contact_user(chosen, b"k") == "4930123"
    assert [is_secret(trunk) for trunk in (chosen, Trunk(name="a", register=True), Trunk(name="a"))] == [
        False,
        True,
        False,
    ]
