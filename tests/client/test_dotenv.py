import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpack_client.failures import is_key_name
from backpack_client.files.dotenv import VALUE_LIMIT, DotenvError, Parsed, parse

MARK = "marker-of-a-value"


def values(text: str) -> dict[str, bytes]:
    parsed = parse(text.encode())
    assert parsed.skipped == (), parsed.skipped
    return {entry.name: entry.value for entry in parsed.entries}


def skipped(text: str) -> Parsed:
    parsed = parse(text.encode())
    assert parsed.entries == ()
    assert len(parsed.skipped) == 1
    return parsed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", b"b"),
        ("A=b\n", b"b"),
        ("A=b\r\n", b"b"),
        ("A = b", b"b"),
        ("  A=b  ", b"b"),
        ("export A=b", b"b"),
        ("export\tA=b", b"b"),
        ("A=b c", b"b c"),
        ("A=b # comment", b"b"),
        ("A=b # c#d", b"b"),
        ("A=b=c==", b"b=c=="),
        ("A=b\\n", b"b\\n"),
        ('A={"k": "v"}', b'{"k": "v"}'),
        ("A=100$", b"100$"),
        ("A=$2b$10$", b"$2b$10$"),
        ("A='b'", b"b"),
        ("A='b' # comment", b"b"),
        ("A='b'#comment", b"b"),
        ("A=' b '", b" b "),
        ("A='$B `d` \\n'", b"$B `d` \\n"),
        ("A='x\ny'", b"x\ny"),
        ("A='x\r\ny'\r\n", b"x\ny"),
        ("A='# b'", b"# b"),
        ('A="b"', b"b"),
        ('A="b" # comment', b"b"),
        ('A="b # c"', b"b # c"),
        (r'A="a\nb\rc"', b"a\nb\rc"),
        ("A='x\ry'\r", b"x\ny"),
        ('A="x\ny\n"', b"x\ny\n"),
        ("A=\N{SNOWMAN}", "\N{SNOWMAN}".encode()),
        ("\ufeffA=b", b"b"),
        ("# comment\n\n  # another\nA=b", b"b"),
    ],
)
def test_a_value_is_read_as_other_readers_read_it(text: str, value: bytes) -> None:
    assert values(text) == {"A": value}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"A: {MARK}", "NAME=value"),
        (MARK, "NAME=value"),
        ("export A", "NAME=value"),
        (f"= {MARK}", "NAME=value"),
        (f"'A'={MARK}", "NAME=value"),
        (f"1A={MARK}", "name"),
        (f"A/B={MARK}", "name"),
        (f"{'A' * 129}={MARK}", "name"),
        ("A=", "no value"),
        ("A=''", "no value"),
        ('A=""', "no value"),
        ("A= # later", "no value"),
        (f"A={MARK}${{B}}", "not expanded"),
        (f"A={MARK}$B", "not expanded"),
        (f"A={MARK}$(b)", "not expanded"),
        (f"A={MARK}`b`", "not expanded"),
        (f'A="{MARK} $B"', "not expanded"),
        (f"A='{MARK}'{MARK}", "closing quote"),
        (f'A="{MARK}"{MARK}', "closing quote"),
        (f"A={MARK}\\", "backslash"),
        (f"A={MARK}#{MARK}", "a #"),
        (f"A=#{MARK}", "a #"),
        (f"A={MARK}\N{NO-BREAK SPACE}", "white space"),
        (f'A="{MARK}\\t"', "backslash"),
        (f'A="\\"{MARK}\\""', "backslash"),
        (f'A="{MARK}\\\\"', "backslash"),
        (f'A="\\${MARK}"', "backslash"),
        (f'A="{MARK}\\q"', "backslash"),
        (f'A="{MARK}\\\n{MARK}"', "backslash"),
        (f"A='{MARK}\\\\{MARK}'", "backslash"),
        (f"A='${{B}}{MARK}'", "${"),
        (f"A={'x' * (VALUE_LIMIT + 1)}", "65536 bytes"),
        (f"A={MARK}'c", "not closed"),
        (f"A={{{MARK}", "not closed"),
        (f"A=-----BEGIN K-----\n{MARK}==\nB=c\n-----END K-----\n", "single quotes"),
    ],
)
def test_what_readers_disagree_about_is_skipped_with_the_reason(text: str, reason: str) -> None:
    parsed = skipped(text)
    assert reason in parsed.skipped[0].reason
    assert MARK not in repr(parsed)


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quote_closed_lines_below_takes_in_no_other_key(quote: str) -> None:
    parsed = parse(f"A={quote}{MARK}\nB=b\nC={quote}\nD=d\n".encode())
    assert [(e.name, e.line) for e in parsed.entries] == [("D", 4)]
    assert [(s.line, s.name) for s in parsed.skipped] == [(1, "A")]
    assert "(lines 1-3)" in parsed.skipped[0].reason
    assert MARK not in repr(parsed)


def test_what_stands_behind_a_quote_that_is_not_closed_is_not_read() -> None:
    # python-dotenv finds neither C nor D there, and npm's dotenv both.
    parsed = parse(b'A=1\nB="oops\nexport C=3\nD="4" # d\nE=5\n')
    assert {e.name: e.value for e in parsed.entries} == {"A": b"1", "E": b"5"}
    assert [(s.line, s.name) for s in parsed.skipped] == [(2, "B")]
    assert "(lines 2-4)" in parsed.skipped[0].reason


def test_a_lone_carriage_return_ends_a_line() -> None:
    assert values("A=1\rB='x\r\ny'\rC=3\r") == {"A": b"1", "B": b"x\ny", "C": b"3"}


@pytest.mark.parametrize(
    "line", ["A: 2", "A", "A #", "'A'=2", "export 'A'", "export A\n=2", "\x0bA=2"]
)
def test_a_value_that_one_program_finds_again_in_a_skipped_line_is_left_out(line: str) -> None:
    assert parse(f"A=1\n{line}\n".encode()).entries == ()


@pytest.mark.parametrize(
    "text",
    [
        f"B='{MARK}\\'\nC='{MARK}'",
        f'B="{MARK}\\"\nC="{MARK}"',
        f"B=\n'{MARK}\nC=1\n'",
        f"B=`{MARK}\nC=1\n`",
        f"'B\nC={MARK}\n'=1",
        f"B:\nC={MARK}",
        f'\'B="\nC={MARK}\n"',
        f"B=\N{NO-BREAK SPACE}'{MARK}\nC=1'",
        f"# \u2028C={MARK}",
    ],
)
def test_text_whose_values_end_elsewhere_for_some_programs_is_refused(text: str) -> None:
    with pytest.raises(DotenvError, match="line 2") as caught:
        parse(f"A=1\n{text}\n".encode())
    assert MARK not in caught.value.message


def test_an_older_value_of_a_key_that_was_taken_in_is_left_out() -> None:
    parsed = parse(b'B=old\nA="a\nB=new\nC="\n')
    assert parsed.entries == ()
    assert [(s.line, s.name) for s in parsed.skipped] == [(1, "B"), (2, "A")]


@pytest.mark.parametrize("name", ["A", "1A"])
def test_all_lines_of_what_was_skipped_are_named(name: str) -> None:
    assert "(lines 1-2)" in skipped(f'{name}="x\ny" z\n').skipped[0].reason


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize(
    "value",
    [
        "-----BEGIN K-----\nMIIB\nabc=\n-----END K-----\n",
        "-----BEGIN K-----\nProc-Type: 4,X\n\nab==\n-----END K-----",
        f"{'a' * 64}\nabc=",
    ],
)
def test_the_padding_of_base64_is_no_assignment(quote: str, value: str) -> None:
    assert values(f"A={quote}{value}{quote}\nB=1") == {"A": value.encode(), "B": b"1"}


def test_a_value_of_the_largest_size_is_read() -> None:
    assert values("A=" + "x" * VALUE_LIMIT) == {"A": b"x" * VALUE_LIMIT}


def test_of_a_name_that_comes_again_the_last_value_is_taken() -> None:
    parsed = parse(b"A=1\nB=2\nA=3\n")
    assert [(e.name, e.value, e.line) for e in parsed.entries] == [("B", b"2", 2), ("A", b"3", 3)]
    assert [(s.line, s.name, s.reason) for s in parsed.skipped] == [
        (1, "A", "comes again in line 3")
    ]


def test_a_name_whose_last_value_is_skipped_is_left_out() -> None:
    parsed = parse(b"A=1\nA=$B\n")
    assert parsed.entries == ()
    assert [(s.line, s.name) for s in parsed.skipped] == [(1, "A"), (2, "A")]


def test_lines_are_counted_through_quoted_newlines() -> None:
    parsed = parse(b"A='x\ny'\r\nB=\"p\n\\\nq\"\nC=1\n")
    assert [(e.name, e.line) for e in parsed.entries] == [("A", 1), ("C", 6)]
    assert [(s.name, s.line) for s in parsed.skipped] == [("B", 3)]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quote_that_is_never_closed_is_an_error_with_its_line(quote: str) -> None:
    with pytest.raises(DotenvError, match="line 2") as caught:
        parse(f"A=1\nB={quote}{MARK}\nC={MARK}\n".encode())
    assert caught.value.line == 2
    assert MARK not in caught.value.message


def test_an_escaped_quote_does_not_close() -> None:
    with pytest.raises(DotenvError):
        parse(rb'A="b\"')


def test_bytes_that_are_not_utf_8_are_an_error_with_the_line_and_without_the_data() -> None:
    with pytest.raises(DotenvError, match="line 2") as caught:
        parse(f"A=1\rB={MARK}".encode() + b"\xff")
    assert MARK not in str(caught.value)
    # Neither may the exception that it came from, which a traceback would show.
    assert caught.value.__suppress_context__


def test_no_repr_shows_a_value() -> None:
    assert MARK not in repr(parse(f"A={MARK}\nA='{MARK}'".encode()))


PIECES = st.one_of(
    st.text(),
    st.sampled_from(
        ["A=", "export ", "'", '"', "\\", "\n", "\r\n", " #", "$B", "${", "=", "`", ":"]
    ),
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_text_parses_or_raises_dotenv_error(text: str) -> None:
    try:
        parsed = parse(text.encode("utf-8", "surrogatepass"))
    except DotenvError:
        return
    names = [entry.name for entry in parsed.entries]
    assert len(set(names)) == len(names)
    assert all(is_key_name(name) for name in names)
    assert all(0 < len(entry.value) <= VALUE_LIMIT for entry in parsed.entries)


@given(st.binary())
def test_any_bytes_parse_or_raise_dotenv_error(data: bytes) -> None:
    with contextlib.suppress(DotenvError):
        parse(data)


# A line below the first that reads like NAME= is skipped, on purpose.
QUOTABLE = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda text: (
        not set("\r\u2028\u2029\\").intersection(text)
        and "${" not in text
        and not ("\n" in text and "=" in text)
    )
)


@given(QUOTABLE.filter(lambda text: "'" not in text))
def test_a_value_in_single_quotes_comes_back(value: str) -> None:
    assert values(f"A='{value}'\nB=1") == {"A": value.encode(), "B": b"1"}


@given(QUOTABLE.filter(lambda text: not set('"$`').intersection(text)))
def test_a_value_in_double_quotes_comes_back(value: str) -> None:
    quoted = value.replace("\n", "\\n")
    assert values(f'A="{quoted}"\nB=1') == {"A": value.encode(), "B": b"1"}
