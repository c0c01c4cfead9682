"""Confidence: probabilities shared out among names, by hand, and the same whichever way an answer was decoded."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import KNOWN

from mlx_router.calls import NoTool, ParseFailure, ToolCall
from mlx_router.catalogue import Catalogue
from mlx_router.confidence import Candidate, NameScore, candidates, scores
from mlx_router.decoder import GreedyDecoder
from mlx_router.grounding import grounded
from mlx_router.loading import load_routing_model
from mlx_router.manifest import read_manifest
from mlx_router.model import Model
from mlx_router.prompts import conversation, system_message

# Names whose tokens part at the second and again at the third token.
NAMES = [Candidate("a", (1, 2, 9)), Candidate("ab", (1, 2, 3, 9)), Candidate("c", (1, 4, 9))]


def follow(*steps: tuple[int, dict[int, float]]) -> NameScore:
    """Tokens with the logits of some tokens at their positions, given as probabilities."""
    score = NameScore(NAMES)
    for token, probabilities in steps:

        def row(tokens: Sequence[int], known: dict[int, float] = probabilities) -> list[float]:
            return [math.log(known[token]) for token in tokens]

        score.follow(token, row)
    return score


def test_the_chosen_names_probability_is_a_product_over_the_partings() -> None:
    # At the second token 2 has 0.6 and 4 has 0.2 of what is legal: 0.75. At the third 9 has 0.1 and 3 has 0.3: 0.75.
    score = follow((1, {}), (2, {2: 0.6, 4: 0.2}), (3, {9: 0.1, 3: 0.3}))
    assert score.chosen == "ab"
    assert score.probability == pytest.approx(0.75 * 0.75)
    # "c" parted with 0.25, "a" with 0.75 * 0.25.
    assert score.runner_up == (pytest.approx(0.25), "c")


def test_a_later_parting_may_hold_the_runner_up() -> None:
    score = follow((1, {}), (2, {2: 0.9, 4: 0.1}), (9, {9: 0.6, 3: 0.4}))
    assert score.chosen == "a"
    assert score.runner_up == (pytest.approx(0.36), "ab")


def test_one_name_alone_is_sure() -> None:
    score = NameScore([Candidate("only", (1, 2))])
    score.follow(1, lambda tokens: [])
    assert (score.chosen, score.probability, score.runner_up) == ("only", 1.0, None)


def test_nothing_is_known_of_an_answer_that_leaves_the_names() -> None:
    assert follow((1, {}), (7, {2: 0.5, 4: 0.5})).chosen is None
    assert NameScore([]).chosen is None


def test_the_weakest_argument_is_the_least_likely_token_after_the_opening() -> None:
    pieces = ['{"tool":"a","', 'arguments":{', '"x":', '"1"', "}}"]
    text = ["".join(pieces)]

    def decode(tokens: Sequence[int]) -> str:
        return "".join(pieces[token] for token in tokens)

    found = scores(NameScore([]), [0, 1, 2, 3, 4], [0.2, 0.9, 0.8, 0.5, 0.99], decode)
    assert decode(range(5)) == text[0]
    assert found.weakest_argument == 0.5
    assert scores(NameScore([]), [0], [0.2], decode).weakest_argument is None


def test_candidates_begin_as_answers_do() -> None:
    made = candidates(["a", "no_tool"], lambda text: [ord(char) for char in text])
    assert ["".join(map(chr, candidate.tokens)) for candidate in made] == ['{"tool":"a","', '{"tool":"no_tool","']


@pytest.fixture(scope="module")
def trained(adapter: Path) -> Model:
    return load_routing_model(adapter, read_manifest(adapter))


def test_scores_do_not_depend_on_the_guesses(trained: Model, catalogue: Catalogue) -> None:
    names = [*(tool.name for tool in catalogue), "no_tool"]
    for request in KNOWN:
        messages = conversation(system_message(catalogue), request)
        plain = GreedyDecoder(trained, draft_length=0).decode(messages, 60, names=names)
        drafted = GreedyDecoder(trained).decode(
            messages, 60, names=names, draft=lambda answer, plain=plain: plain.text[len(answer) :]
        )
        assert plain.scores is not None and drafted.scores is not None
        assert drafted.scores.runner_up == plain.scores.runner_up
        assert drafted.scores.tool == pytest.approx(plain.scores.tool, abs=1e-4)
        assert drafted.scores.weakest_argument == pytest.approx(plain.scores.weakest_argument, abs=1e-4)


def test_a_names_score_is_what_whole_passes_give(trained: Model, catalogue: Catalogue) -> None:
    """The logits of the whole answer, run once without any cache, give the same probability of the name."""
    import mlx.core as mx

    names = [*(tool.name for tool in catalogue), "no_tool"]
    messages = conversation(system_message(catalogue), next(iter(KNOWN)))
    answer = GreedyDecoder(trained).decode(messages, 60, names=names)
    assert answer.scores is not None and answer.scores.tool is not None

    def encode(text: str) -> list[int]:
        return trained.chat.tokenizer.encode(text, add_special_tokens=False)

    prompt, tokens = trained.chat.prompt_tokens(messages), encode(answer.text)
    logits = trained.network(mx.array([[*prompt, *tokens]]))[0]
    score = NameScore(candidates(names, encode))
    for at, token in enumerate(tokens):
        row = logits[len(prompt) + at - 1].tolist()
        score.follow(token, lambda wanted, row=row: [row[key] for key in wanted])
    assert answer.scores.tool == pytest.approx(score.probability, abs=1e-4)


def test_free_text_that_the_request_does_not_have_is_not_grounded(catalogue: Catalogue) -> None:
    said = ToolCall(tool="track_order", arguments={"order_id": "A-1"})
    assert grounded(said, catalogue, "where is A-1?") is True
    assert grounded(said, catalogue, "where is a-1?") is False
    assert grounded(NoTool(reason="chitchat"), catalogue, "hi") is None


def test_a_failure_is_not_grounded_or_ungrounded(catalogue: Catalogue) -> None:
    from mlx_router.calls import Failure

    assert grounded(ParseFailure(Failure.EMPTY, ""), catalogue, "hi") is None
