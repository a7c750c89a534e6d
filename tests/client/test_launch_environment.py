"""Which variables an agent's keys and personality may set, and what wins."""

from typing import Any

import pytest

from backpack_client import Failure
from backpack_client.launch import environment


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "Path", "LD_PRELOAD", "LD_LIBRARY_PATH", "ld_audit", "DYLD_INSERT_LIBRARIES",
        "HOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHON_ANYTHING", "NODE_OPTIONS", "BASH_ENV",
        "ENV", "IFS", "PERL5LIB", "PERL5OPT", "RUBYOPT", "RUBYLIB", "JAVA_TOOL_OPTIONS",
        "GIT_SSH_COMMAND", "GIT_EXEC_PATH", "GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "SHELLOPTS",
        "PS4", "PROMPT_COMMAND", "GLIBC_TUNABLES", "GCONV_PATH", "OPENSSL_CONF", "SSL_CERT_FILE",
        "https_proxy", "EDITOR", "npm_config_script_shell", "PIP_INDEX_URL", "LESSOPEN",
        "BACKPACK_SOCKET", "BACKPACK_KEYS_FD", "AGENT_MASTER_KEY", "SSH_AUTH_SOCK",
        "XDG_CONFIG_HOME", "MAKEFLAGS", "DOTNET_STARTUP_HOOKS", "PHPRC", "CLASSPATH", "LUA_INIT",
        "ZDOTDIR", "MALLOC_CHECK_", "TERMINFO", "SSLKEYLOGFILE", "DBUS_SESSION_BUS_ADDRESS",
        "NOTIFY_SOCKET", "LISTEN_FDS", "PERLLIB", "TAR_OPTIONS", "LESS", "GIT_TRACE2_EVENT",
        "AWS_SHARED_CREDENTIALS_FILE", "RIPGREP_CONFIG_PATH", "AWS_PAGER", "PKG_CONFIG_PATH",
        "GCC_EXEC_PREFIX", "RUSTUP_TOOLCHAIN", "CGO_LDFLAGS", "PYTEST_ADDOPTS", "PYTEST_PLUGINS",
        "RSYNC_CONNECT_PROG", "RSYNC_RSH", "LESSKEY_CONTENT", "OMP_TOOL_LIBRARIES",
        "YARN_YARN_PATH", "APT_CONFIG", "PSModulePath", "MONO_PATH", "MONO_GC_PARAMS",
        "KUBECTL_EXTERNAL_DIFF", "TF_CLI_ARGS", "TF_CLI_ARGS_plan", "ANSIBLE_CONFIG",
        "ANSIBLE_CALLBACK_PLUGINS", "CCACHE_PREFIX", "ESBUILD_BINARY_PATH", "LIBMYSQL_PLUGIN_DIR",
        "GDK_PIXBUF_MODULE_FILE", "LD", "AS", "FC", "GIT_SSH_KEY", "GIT_SSL_KEY", "RUSTDOC",
        "AGENT_BROWSER_EXECUTABLE_PATH", "LD_SOME_KEY", "PYTHON_TOKEN", "BACKPACK_API_KEY",
        "COVERAGE_PROCESS_START", "UV_INDEX_URL", "UV_PYTHON",
    ],
)  # fmt: skip
def test_a_name_that_changes_how_programs_run_is_refused(name: str) -> None:
    with pytest.raises(Failure) as caught:
        environment.check_keys([name])
    assert caught.value.reason == "variable-refused"


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GITHUB_TOKEN", "GIT_TOKEN", "NODE_AUTH_TOKEN",
        "NPM_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "SSH_PASSPHRASE", "HF_TOKEN",
        "PGPASSWORD", "GH_TOKEN", "TF_TOKEN_X", "LESSONS_KEY",
        "DOCKER_PASSWORD", "K", "_k", "PATHOLOGY_KEY", "JAVA_SERVICE_KEY", "CARGO_REGISTRY_TOKEN",
    ],
)  # fmt: skip
def test_names_that_keys_have_are_let_through(name: str) -> None:
    environment.check_keys([name])


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("OPENAI_BASE_URL", True), ("ANTHROPIC_BASE_URL", True), ("OPENAI_API_BASE", True),
        ("AZURE_OPENAI_ENDPOINT", True), ("AWS_ENDPOINT_URL_S3", True), ("openai_base_url", True),
        ("OPENAI_API_KEY", False), ("DATABASE_URL", True), ("BASE_URL_KEY", False),
        ("VAULT_ADDR", True), ("OPENAI_PROXY", True), ("DOCKER_HOSTNAME", True),
        ("X_REPOSITORY", True),
        ("REDIS_URI", True), ("LLM_BASE", True), ("MCP_SERVERS", True), ("URL", True),
        ("CURL", False), ("LOCALHOST", False), ("CMAKE_TOOLCHAIN_FILE", False),
    ],
)  # fmt: skip
def test_a_name_that_sends_keys_elsewhere_is_let_through_and_known(name: str, is_one: bool) -> None:
    environment.check_keys([name])
    assert environment.is_address(name) is is_one


@pytest.mark.parametrize("name", ["a.b", "A-B"])
def test_a_key_whose_name_no_variable_can_have_is_refused(name: str) -> None:
    with pytest.raises(Failure) as caught:
        environment.check_keys(["K", name])
    assert caught.value.reason == "no-variable"
    # It has the form of many a value, too, and may be one.
    assert name not in caught.value.render()


def test_what_was_typed_in_place_of_a_name_is_not_shown() -> None:
    with pytest.raises(Failure) as caught:
        environment.check_keys(["K=sk-live-1"])
    assert "sk-live" not in caught.value.render()
    assert "never given on the command line" in caught.value.hint


def test_keys_whose_variables_are_set_are_not_asked_for_also_where_they_are_empty() -> None:
    environ = {b"K": b"mine", b"L": b""}
    assert environment.of_keys(["K", "L", "M"], environ) == (["M"], ["K", "L"])


def test_a_personality_becomes_variables() -> None:
    personality = {
        "system_prompt": "be brief\nand kind", "Tone": "dry", "steps": 3, "heat": 0.5, "fast": True
    }  # fmt: skip
    found = environment.of_personality(personality, {})
    assert found.values == {
        "AGENT_SYSTEM_PROMPT": b"be brief\nand kind",
        "AGENT_TONE": b"dry",
        "AGENT_STEPS": b"3",
        "AGENT_HEAT": b"0.5",
        "AGENT_FAST": b"true",
    }
    assert (found.kept, found.left_out) == ((), ())


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("nested", {"a": 1}),
        ("many", [1]),
        ("nothing", None),
        ("a-b", "x"),
        ("a=b", "x"),
        ("ä", "x"),
        ("", "x\0y"),
        ("zero", "x\0y"),
        ("torn", "\ud800"),
        ("master_key", "x"),
        ("Master_Key", "x"),
        ("browser_executable_path", "./x"),
        ("Browser_Args", "x"),
        ("tempdirectory", "x"),
    ],
)
def test_what_cannot_be_a_variable_is_left_out_and_named(member: str, value: Any) -> None:
    found = environment.of_personality({member: value, "tone": "dry"}, {})
    assert (found.values, found.left_out) == ({"AGENT_TONE": b"dry"}, (member,))


def test_of_two_members_for_one_variable_neither_is_set() -> None:
    found = environment.of_personality({"tone": "dry", "TONE": "warm", "a": "b"}, {})
    assert found.values == {"AGENT_A": b"b"}
    assert sorted(found.left_out) == ["TONE", "tone"]


def test_a_personality_does_not_replace_what_is_set() -> None:
    found = environment.of_personality({"tone": "dry"}, {b"AGENT_TONE": b"mine"})
    assert (found.values, found.kept) == ({}, ("AGENT_TONE",))


def test_a_value_with_a_zero_byte_is_refused_without_showing_it() -> None:
    with pytest.raises(Failure) as caught:
        environment.check_values({"K": b"before\0after"})
    assert "before" not in caught.value.render()


def test_variables_show_no_value() -> None:
    assert "dry" not in repr(environment.of_personality({"tone": "dry"}, {}))
