import pytest

from backpack_client.console.line_folding import cut, fold, width


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("", 20, [""]),
        ("x" * 20, 20, ["x" * 20]),
        ("x" * 21, 20, ["x" * 20, "    | x"]),
        ("x" * 35, 20, ["x" * 20, "    | " + "x" * 14, "    | x"]),
        ("\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 11, 20, ["\u4e2d" * 10, "    | \u4e2d"]),
        ("x" * 21, 1, ["x" * 20, "    | x"]),
    ],
)
def test_what_runs_over_the_edge_of_the_terminal_goes_on_behind_a_mark(
    text: str, columns: int, lines: list[str]
) -> None:
    assert fold(text, columns) == lines


def test_no_padding_makes_a_claim_look_like_the_root_that_is_to_be_approved() -> None:
    claim = "  70 /bin/agent  [claims: x" + " " * 53 + "*     `- 66 (root) /bin/trusted]"
    first, second = fold(claim, 80)
    assert len(first) == 80
    assert second == "    | *     `- 66 (root) /bin/trusted]"


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("", 3, ""),
        ("abcd", 4, "abcd"),
        ("abcde", 4, "a..."),
        ("abcd", 3, "..."),
        ("\u4e2d\u4e2d\u4e2d", 6, "\u4e2d\u4e2d\u4e2d"),
        ("\u4e2d\u4e2d\u4e2d", 5, "\u4e2d..."),
        ("\u4e2d\u4e2d\u4e2d", 4, "..."),
    ],
)
def test_text_is_cut_by_the_columns_that_it_takes(text: str, columns: int, shown: str) -> None:
    assert cut(text, columns) == shown
    assert width(shown) <= columns
