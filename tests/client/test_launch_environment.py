"""Which variables an agent's keys and personality may set, and what wins."""

from typing import Any

import pytest

from backpack_client import Failure
from backpack_client.launch import environment

REFUSED = """
    PATH path Path LD_PRELOAD ld_library_path LD_AUDIT DYLD_INSERT_LIBRARIES SHELL HOME PYTHONPATH
    PYTHONSTARTUP PYTHON_ANYTHING NODE_OPTIONS NODE_PATH BASH_ENV ENV IFS PERL5LIB PERL5OPT RUBYOPT
    RUBYLIB JAVA_TOOL_OPTIONS _JAVA_OPTIONS JDK_JAVA_OPTIONS SHELLOPTS GLIBC_TUNABLES GCONV_PATH
    OPENSSL_CONF npm_config_node_options NPM_CONFIG_USERCONFIG PIP_CONFIG_FILE BACKPACK_SOCKET
    BACKPACK_KEYS_FD AGENT_MASTER_KEY MAKEFLAGS DOTNET_STARTUP_HOOKS PHPRC CLASSPATH LUA_INIT
    ZDOTDIR MALLOC_CHECK_ TERMINFO NOTIFY_SOCKET LISTEN_FDS PERLLIB GCC_EXEC_PREFIX PYTEST_ADDOPTS
    PYTEST_PLUGINS OMP_TOOL_LIBRARIES YARN_YARN_PATH PSModulePath MONO_PATH MONO_GC_PARAMS
    ANSIBLE_CONFIG ANSIBLE_CALLBACK_PLUGINS ESBUILD_BINARY_PATH LIBMYSQL_PLUGIN_DIR
    GDK_PIXBUF_MODULE_FILE COVERAGE_PROCESS_START UV_PYTHON GTK_MODULES QT_PLUGIN_PATH GIT_EXEC_PATH
    BUNDLE_GEMFILE GEM_HOME CARGO_HOME GOFLAGS RUSTFLAGS CFLAGS VIRTUAL_ENV
""".split()  # noqa: SIM905 - words are read at a glance
WARNED = """
    GIT_SSH_COMMAND GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0 PS4 PROMPT_COMMAND EDITOR
    SSL_CERT_FILE https_proxy npm_config_script_shell npm_config_registry PIP_INDEX_URL UV_INDEX_URL
    LESSOPEN SSH_AUTH_SOCK XDG_CONFIG_HOME SSLKEYLOGFILE DBUS_SESSION_BUS_ADDRESS TAR_OPTIONS LESS
    GIT_TRACE2_EVENT AWS_SHARED_CREDENTIALS_FILE RIPGREP_CONFIG_PATH AWS_PAGER PKG_CONFIG_PATH
    RUSTUP_TOOLCHAIN CGO_LDFLAGS RSYNC_CONNECT_PROG RSYNC_RSH LESSKEY_CONTENT APT_CONFIG
    KUBECTL_EXTERNAL_DIFF TF_CLI_ARGS TF_CLI_ARGS_plan CCACHE_PREFIX LD AS FC GIT_SSH_KEY
    GIT_SSL_KEY RUSTDOC AGENT_BROWSER_EXECUTABLE_PATH RUSTC_WRAPPER GOPROXY DOCKER_HOST KUBECONFIG
    GNUPGHOME CC
    BUNDLE_MIRROR__ALL BUNDLE_GEMS__CONTRIBSYS__COM GRPC_PROXY
""".split()  # noqa: SIM905 - likewise
CREDENTIALS = """
    OPENAI_API_KEY ANTHROPIC_API_KEY GEMINI_API_KEY GOOGLE_API_KEY MISTRAL_API_KEY COHERE_API_KEY
    GROQ_API_KEY TOGETHER_API_KEY OPENROUTER_API_KEY HF_TOKEN HUGGING_FACE_HUB_TOKEN
    REPLICATE_API_TOKEN AZURE_OPENAI_API_KEY AZURE_CLIENT_SECRET AWS_ACCESS_KEY_ID
    AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN GITHUB_TOKEN GH_TOKEN GITLAB_TOKEN GIT_TOKEN
    BITBUCKET_APP_PASSWORD SLACK_BOT_TOKEN STRIPE_SECRET_KEY TWILIO_AUTH_TOKEN SENDGRID_API_KEY
    NOTION_TOKEN LINEAR_API_KEY JIRA_API_TOKEN SENTRY_AUTH_TOKEN DD_API_KEY CLOUDFLARE_API_TOKEN
    NPM_TOKEN NODE_AUTH_TOKEN NPM_CONFIG_TOKEN NPM_CONFIG__AUTH YARN_NPM_AUTH_TOKEN
    UV_PUBLISH_TOKEN UV_PUBLISH_PASSWORD UV_PUBLISH_USERNAME UV_INDEX_PRIVATE_PASSWORD
    TWINE_PASSWORD PYPI_TOKEN POETRY_PYPI_TOKEN_PYPI RUBYGEMS_API_KEY GEM_HOST_API_KEY
    CARGO_REGISTRY_TOKEN CARGO_REGISTRIES_X_TOKEN DOCKER_PASSWORD DOCKERHUB_TOKEN
    ANSIBLE_VAULT_PASSWORD ANSIBLE_BECOME_PASSWORD LISTEN_NOTES_API_KEY LISTENNOTES_KEY VAULT_TOKEN
    BAO_TOKEN CONSUL_HTTP_TOKEN PULUMI_ACCESS_TOKEN TF_TOKEN_app_terraform_io TF_VAR_api_key
    DIGITALOCEAN_ACCESS_TOKEN HEROKU_API_KEY VERCEL_TOKEN NETLIFY_AUTH_TOKEN FLY_API_TOKEN
    DATABASE_URL PGPASSWORD MYSQL_PWD REDIS_PASSWORD MONGODB_PASSWORD SNOWFLAKE_PASSWORD
    SSH_PASSPHRASE BACKPACK_API_KEY PERL_API_TOKEN JULIA_PKG_TOKEN PYTHON_TOKEN XDG_API_KEY
    PATHOLOGY_KEY LESSONS_KEY JAVA_SERVICE_KEY DISPLAYLINK_TOKEN K _k
""".split()  # noqa: SIM905 - likewise


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("typed", [True, False])
def test_a_name_that_changes_which_code_is_loaded_is_refused_with_the_reason(
    name: str, typed: bool
) -> None:
    with pytest.raises(Failure, match=f"must not set {name}: it ") as caught:
        environment.check_keys(["K", name], [name] if typed else [])
    assert caught.value.reason == "variable-refused"


@pytest.mark.parametrize("name", WARNED)
def test_another_dangerous_name_is_handed_over_if_it_was_typed_and_left_out_of_a_lock(
    name: str,
) -> None:
    usable, dangers = environment.check_keys(["K", name, "L"], [name])
    assert usable == ["K", name, "L"]
    assert list(dangers) == [name]
    usable, dangers = environment.check_keys(["K", name, "L"])
    assert usable == ["K", "L"]
    assert dangers[name].why


@pytest.mark.parametrize("name", CREDENTIALS)
def test_names_that_keys_have_are_let_through(name: str) -> None:
    assert environment.check_keys([name]) == ([name], {})


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
