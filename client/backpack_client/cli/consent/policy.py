"""The commands for the policy: policy show, policy set."""

from dataclasses import replace

import click

from backpack_client.cli.session import Session, json_option, passphrase_option
from backpack_client.console import terminal
from backpack_client.durations import format_duration, parse_duration
from backpack_client.model import DenyRule, Policy, PolicyDefault, PolicyListing

_MEANING = {
    PolicyDefault.ASK: "a person is asked",
    PolicyDefault.ALLOW: "every process of yours may lease every key",
    PolicyDefault.DENY: "it is denied",
}
_LISTED = {
    PolicyListing.GRANTED: "what a grant lets the caller's process tree lease",
    PolicyListing.ALL: "every name, to every process of yours",
}


@click.group("policy")
def policy() -> None:
    """Show or change what holds for every request.

    The policy is sealed in the vault. The daemon's configuration file can only tighten it.
    """


@policy.command("show")
@json_option
@passphrase_option
@click.pass_obj
def show(session: Session, as_json: bool, passphrase_file: str | None) -> None:
    """Show the policy, as sealed and as in force.

    JSON: one object with sealed and in_force: objects with default (ask, allow, deny), list
    (granted, all), max_ttl_seconds, and deny: a list of objects with patterns and selector (empty:
    everybody).
    """
    with session.operator(passphrase_file) as backpack:
        policies = backpack.policy()
    if as_json:
        terminal.print_json(
            {"sealed": _document(policies.sealed), "in_force": _document(policies.in_force)}
        )
        return
    terminal.print_lines(_lines(policies.in_force))
    if policies.in_force != policies.sealed:
        terminal.print_lines(
            ["", "the configuration file tightens it; without it:", *_lines(policies.sealed)]
        )


@policy.command("set")
@click.option(
    "--default",
    type=click.Choice([str(each) for each in PolicyDefault]),
    help="What happens to a request that no grant covers.",
)
@click.option(
    "--list",
    "listing",
    type=click.Choice([str(each) for each in PolicyListing]),
    help="Which names `list` shows without the passphrase.",
)
@click.option("--max-ttl", metavar="T", help="No lease lives longer than this, up to 30d.")
@click.option(
    "--deny",
    metavar="PATTERN[=SELECTOR]",
    multiple=True,
    help="Add a rule: these keys are denied to SELECTOR, or to everybody.",
)
@click.option("--no-deny", is_flag=True, help="Drop the existing rules before adding any.")
@passphrase_option
@click.pass_obj
def set_(
    session: Session,
    *,
    default: str | None,
    listing: str | None,
    max_ttl: str | None,
    deny: tuple[str, ...],
    no_deny: bool,
    passphrase_file: str | None,
) -> None:
    """Change the policy; settings that you omit stay as they are.

    Rules beat every grant. In PATTERN, * stands for any run of characters (quote it); SELECTOR is
    uid:N, exe:PATH, sha256:HEX or unit:NAME, see grant --help.
    """
    if not (default or listing or max_ttl or deny or no_deny):
        raise click.UsageError("name something to change")
    longest = None if max_ttl is None else parse_duration(max_ttl)
    rules = tuple(map(_rule, deny))
    if default == PolicyDefault.ALLOW:
        terminal.say(
            "warning: with allow nobody is asked: every process of yours may lease every key, as "
            "with an ssh agent; ask is the default"
        )
    with session.operator(passphrase_file) as backpack:
        sealed = backpack.policy().sealed
        wanted = replace(
            sealed,
            default=PolicyDefault(default or sealed.default),
            listing=PolicyListing(listing or sealed.listing),
            deny=(() if no_deny else sealed.deny) + rules,
            max_ttl_seconds=longest or sealed.max_ttl_seconds,
        )
        backpack.set_policy(wanted)
        in_force = backpack.policy().in_force
    terminal.say("the policy is changed")
    if in_force != wanted:
        terminal.say("the configuration file tightens it: see backpack-client policy show")


def _rule(given: str) -> DenyRule:
    pattern, _, selector = given.partition("=")
    return DenyRule((pattern,), selector)


def _lines(shown: Policy) -> list[str]:
    rules = [
        f"{'denied' if not number else '':<11}{' '.join(rule.patterns)}  to "
        f"{rule.selector or 'everybody'}"
        for number, rule in enumerate(shown.deny)
    ]
    return [
        f"default    {shown.default}: where nothing was granted, {_MEANING[shown.default]}",
        f"list       {shown.listing}: {_LISTED[shown.listing]}",
        f"max ttl    {format_duration(shown.max_ttl_seconds)}",
        *(rules or ["denied     no rules"]),
    ]


def _document(shown: Policy) -> dict[str, object]:
    return {
        "default": str(shown.default),
        "list": str(shown.listing),
        "max_ttl_seconds": shown.max_ttl_seconds,
        "deny": [
            {"patterns": list(rule.patterns), "selector": rule.selector} for rule in shown.deny
        ],
    }


COMMANDS = {"policy": policy}
