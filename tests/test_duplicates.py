"""Folded texts, and clusters of requests that say nearly the same."""

import random
import time

import pytest

from mlx_router.duplicates import clusters, fold


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where's my order?", "wheres  my ORDER"),
        ("Where’s my order", "where's my order!"),
        ("STRASSE", "straße"),
        ("ORD-1234, please.", "ord 1234 please"),
        ("don't\nstop", "Don't stop"),
        ("ﬁnd it", "find it"),
    ],
)
def test_what_folds_to_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"), [("की", "का"), ("5 €", "5 $"), ("?", "!"), ("日本", "日本語"), ("c++", "c"), ("👍", "👎")]
)
def test_what_stays_apart(one: str, other: str) -> None:
    assert fold(one) != fold(other)


def near(one: str, other: str) -> bool:
    found = clusters([one, other])
    return found[0] == found[1]


def test_small_differences_are_near() -> None:
    assert near("Find the movie schedule for tonight", "find me the movie schedule for tonight!")
    assert near("please cancel my subscription to the newsletter", "please cancle my subscription to the newsletter")


def test_other_words_and_other_numbers_are_not() -> None:
    assert not near("add this song to my playlist Rock", "add this song to my playlist Jazz please")
    assert not near("where is my order with the number ORD-1234", "where is my order with the number ORD-1235")
    assert not near("hi", "ho")


def test_clusters_do_not_depend_on_the_order() -> None:
    texts = [
        "please cancel my subscription",
        "Please cancel my subscription!",
        "please cancels my subscription",
        "hello",
    ]
    texts += [f"set a timer for {number} minutes" for number in range(20)]
    shuffled = random.Random(1).sample(texts, len(texts))
    together = {frozenset(t for t, c in zip(texts, clusters(texts), strict=True) if c == n) for n in clusters(texts)}
    found = clusters(shuffled)
    assert together == {frozenset(t for t, c in zip(shuffled, found, strict=True) if c == n) for n in found}
    assert len(together) == 22


def test_short_odd_and_equal_texts() -> None:
    assert clusters([]) == []
    assert clusters(["?", "?", "!", "a", "A"]) == [0, 0, 1, 2, 2]


def test_thousands_of_texts_of_one_mould_take_seconds() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=7)) for _ in range(300)]
    texts = [f"please put {rng.choice(words)} and {rng.choice(words)} on my list" for _ in range(3000)]
    start = time.perf_counter()
    clusters(texts)
    assert time.perf_counter() - start < 20
