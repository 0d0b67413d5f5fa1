"""The kit: what it writes is one file that no text can break out of."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seirenes_jax.html import Cards, Listing, Prose, Section, Table, embed, escape, page


def data_of(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found.group(1))


SIGNS = st.characters(exclude_categories=[]) | st.sampled_from("<>&/!-\u2028\ud800")


@given(st.text(alphabet=SIGNS))
def test_embedded_text_holds_no_markup_and_comes_back_whole(text: str) -> None:
    out = embed({"text": text})
    assert not set(out) & set("<>&\u2028\u2029")
    out.encode("utf-8")
    assert json.loads(out)["text"] == text


def test_a_script_in_a_text_cannot_close_the_data() -> None:
    evil = "</script><script>alert(1)</script><!-- ]]>"
    text = page(evil, evil, [Section(evil, evil, (Prose(evil), Listing(evil)))])
    assert text.count("<script") == 2 and text.count("</script>") == 2  # the data and the kit
    assert data_of(text)["sections"][0]["parts"][0]["text"] == evil
    assert f"<title>{escape(evil)}</title>" in text


def test_the_file_asks_for_nothing_outside() -> None:
    text = page("t", "", [Section("", "", (Table((("a", "text"),), ()), Cards(())))])
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|innerHTML|\beval\(|new Function|document\.write", text)
    assert "default-src 'none'" in text


def test_the_policy_names_just_the_kit() -> None:
    """A changed script or style no longer matches the digest a page was written with."""
    text = page("t", "", [])
    policy = re.search(r'content="(default-src[^"]*)"', text)
    assert policy
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", policy.group(1))) == 2
    assert "unsafe" not in policy.group(1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_unknown(value: float) -> None:
    table = Table((("share", "percent"),), ((value,), (1 / 3,)))
    parts = data_of(page("t", "", [Section("", "", (table,))]))["sections"][0]["parts"]
    assert parts[0]["rows"] == [[None], [0.333333]]


def test_numpy_values_are_refused_rather_than_guessed() -> None:
    with pytest.raises(TypeError):
        page("t", "", [Section("", "", (Table((("n", "whole"),), ((np.int64(3),),)),))])
