"""The environment that an agent begins with: which variables may be set, and what wins.

Pure. Its rules:

1. A lock comes with code from elsewhere, so what it names is not trusted: a name that changes how
   programs are found, loaded, configured or connected is refused, in whatever case it is written.
   The list is of what is known to. It guards against a lock that takes over the tools of whoever
   runs it, not against an agent's own code, which is hostile or is not.
2. A variable that is set already wins, also an empty one, and its key is not asked for.
3. A name that says where a program sends its keys (`OPENAI_BASE_URL`) is not refused, since locks
   have good reasons for one, but named where the lock itself brings the address.
   That, and every other name that is not one of a credential, the daemon hands out only once the
   operator has accepted it for the lock. This list holds in addition, whatever was accepted.
4. Values are bytes. What no variable can hold is refused, never cut or escaped.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backpack_client.failures import Failure, is_key_name, not_a_key_name, printable

PREFIX = "AGENT_"
LOCK_VARIABLE = "BACKPACK_AGENT_LOCK"
KEYS_VARIABLE = "BACKPACK_KEYS_FD"
KEYS_PATH_VARIABLE = "BACKPACK_KEYS_PATH"
OF_ONE_AGENT = (LOCK_VARIABLE, KEYS_VARIABLE, KEYS_PATH_VARIABLE)
"""What `run` sets for the one agent that it starts."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ADDRESS = re.compile(
    r"(.+_)?(URL|URI|ADDR|ADDRESS|HOST|HOSTNAME|ENDPOINT|PROXY|REPOSITORY|REGISTRY|BASE|SERVER"
    r"|ORIGIN|DOMAIN|DSN|WEBHOOK|PEER|BROKER|GATEWAY|REMOTE)S?"
    r"|.+_ENDPOINT_URL_.+",
    re.ASCII,
)

# Whole families: the dynamic linkers, the C library, interpreters that read many variables, shells,
# package managers, and what belongs to Backpack or to a service manager.
_REFUSED_PREFIXES = (
    "AGENT_BROWSER_",
    "ANSIBLE_",
    "BACKPACK_",
    "BASH_",
    "BUNDLE_",
    "CARGO_BUILD_",
    "CARGO_TARGET_",
    "CCACHE_",
    "CGO_",
    "COMPLUS_",
    "CORECLR_",
    "COR_",
    "DBUS_",
    "DOTNET_",
    "DYLD_",
    "GDK_PIXBUF_",
    "GIT_CONFIG",
    "GIT_SSH",
    "GIT_SSL_",
    "GIT_TRACE",
    "GRPC_",
    "GST_PLUGIN",
    "GTK_",
    "JULIA_",
    "LD_",
    "LISTEN_",
    "LUA_",
    "MALLOC_",
    "MONO_",
    "NPM_CONFIG_",
    "OPENSSL_",
    "PERL5",
    "PERL_",
    "PIP_",
    "PKG_CONFIG",
    "PYTHON",
    "QT_",
    "RUBY",
    "RUSTC",
    "RUSTUP_",
    "SYSTEMD_",
    "TF_CLI_ARGS",
    "UV_",
    "XDG_",
)
_REFUSED = frozenset(
    # Words in a text are read at a glance, in a list each would take a line.
    """
    PATH HOME SHELL USER LOGNAME PWD OLDPWD TMPDIR TEMP TMP TERM TERMINFO TERMINFO_DIRS TERMCAP
    ENV IFS CDPATH FPATH ZDOTDIR SHELLOPTS BASHOPTS GLOBIGNORE EXECIGNORE INPUTRC HISTFILE
    PS0 PS1 PS2 PS3 PS4 PROMPT_COMMAND PROMPT_DIRTRIM FIGNORE MAIL MAILPATH MAILCHECK
    GCONV_PATH GETCONF_DIR HOSTALIASES LOCALDOMAIN LOCPATH NLSPATH NIS_PATH RESOLV_HOST_CONF
    RES_OPTIONS RESOLV_ADD_TRIM_DOMAINS TZDIR GLIBC_TUNABLES NOTIFY_SOCKET WATCHDOG_USEC
    NODE_OPTIONS NODE_PATH NODE_EXTRA_CA_CERTS NODE_REPL_EXTERNAL_MODULE NODE_V8_COVERAGE
    NODE_TLS_REJECT_UNAUTHORIZED NODE_ICU_DATA BUN_OPTIONS BUN_INSTALL DENO_DIR
    JAVA_TOOL_OPTIONS _JAVA_OPTIONS JDK_JAVA_OPTIONS JAVA_OPTS JAVA_HOME CLASSPATH MAVEN_OPTS
    GRADLE_OPTS ANT_OPTS SBT_OPTS JRUBY_OPTS JDK_JAVAC_OPTIONS PERLLIB
    LUA_INIT PHPRC PHP_INI_SCAN_DIR R_PROFILE R_PROFILE_USER R_ENVIRON R_ENVIRON_USER
    R_HOME R_LIBS R_LIBS_USER GEM_HOME GEM_PATH TCLLIBPATH ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS
    ERL_LIBS ELIXIR_ERL_OPTIONS GHCRTS GUILE_LOAD_PATH GUILE_LOAD_COMPILED_PATH OCAMLRUNPARAM
    GOFLAGS GOENV GOPROXY GOROOT GOPATH GOTOOLCHAIN CARGO_HOME RUSTFLAGS
    LD AS FC F77 NM RANLIB STRIP OBJCOPY YACC LEX RUSTDOC RUSTDOCFLAGS CARGO_ENCODED_RUSTFLAGS
    GRADLE_USER_HOME MAVEN_ARGS GREP_OPTIONS
    CC CXX CPP AR LINKER CFLAGS CXXFLAGS LDFLAGS CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH
    LIBRARY_PATH COMPILER_PATH GCC_EXEC_PREFIX MAKE MAKEFLAGS MFLAGS GNUMAKEFLAGS MAKEFILES
    VIRTUAL_ENV CONDA_PREFIX PYTEST_ADDOPTS PYTEST_PLUGINS COVERAGE_PROCESS_START YARN_YARN_PATH
    ESBUILD_BINARY_PATH PSMODULEPATH OMP_TOOL_LIBRARIES LIBMYSQL_PLUGIN_DIR APT_CONFIG
    EDITOR VISUAL PAGER MANPAGER BROWSER LESS LESSOPEN LESSCLOSE LESSKEY LESSKEY_CONTENT
    VIMINIT EXINIT MYVIMRC GVIMINIT VIM VIMRUNTIME EMACSLOADPATH HGRCPATH HGEDITOR SVN_EDITOR
    SVN_SSH CVS_RSH RSYNC_RSH RSYNC_CONNECT_PROG KUBECTL_EXTERNAL_DIFF
    AWS_PAGER GH_PAGER GH_EDITOR GH_BROWSER PSQL_PAGER PSQL_EDITOR BAT_PAGER DELTA_PAGER
    TAR_OPTIONS RIPGREP_CONFIG_PATH FZF_DEFAULT_COMMAND FZF_DEFAULT_OPTS IPYTHONDIR JUPYTER_PATH
    JUPYTER_CONFIG_DIR JUPYTER_CONFIG_PATH TCL_LIBRARY TK_LIBRARY ELECTRON_RUN_AS_NODE
    GIT_ASKPASS GIT_DIR GIT_EDITOR GIT_EXEC_PATH GIT_EXTERNAL_DIFF GIT_PAGER GIT_PROXY_COMMAND
    GIT_SEQUENCE_EDITOR GIT_SSH GIT_SSH_COMMAND GIT_SSH_VARIANT GIT_SSL_NO_VERIFY GIT_TEMPLATE_DIR
    GIT_WORK_TREE GIT_ALLOW_PROTOCOL GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR
    GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_NAMESPACE GIT_SSL_CAINFO
    SSH_ASKPASS SSH_ASKPASS_REQUIRE SSH_AUTH_SOCK SUDO_ASKPASS SUDO_EDITOR DISPLAY WAYLAND_DISPLAY
    GIO_MODULE_DIR GIO_EXTRA_MODULES GSETTINGS_SCHEMA_DIR GSETTINGS_BACKEND
    HTTP_PROXY HTTPS_PROXY ALL_PROXY FTP_PROXY NO_PROXY SSL_CERT_FILE SSL_CERT_DIR SSLKEYLOGFILE
    CURL_CA_BUNDLE CURL_HOME REQUESTS_CA_BUNDLE WGETRC NETRC GNUPGHOME KRB5_CONFIG
    DOCKER_HOST DOCKER_CONFIG KUBECONFIG AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE AWS_CA_BUNDLE
    CLOUDSDK_PYTHON TF_CLI_CONFIG_FILE PGSERVICEFILE
    AGENT_MASTER_KEY AGENT_HOMEDIRECTORY AGENT_ROOTDIRECTORY AGENT_TOOLSDIRECTORY
    AGENT_TEMPDIRECTORY AGENT_WORKFOLDER AGENT_BUILDDIRECTORY AGENT_PROXYURL
    """.split()  # noqa: SIM905 - as above
)


@dataclass(frozen=True, slots=True)
class Variables:
    """Variables to set, and what is to be said about the others.

    Attributes:
        values: by name.
        kept: names that are set already.
        left_out: members of the personality that are no variables, as the lock names them.
    """

    values: dict[str, bytes] = field(repr=False)
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def is_refused(name: str) -> bool:
    """Tell whether a name is one that changes how programs are loaded, run or connected."""
    upper = name.upper()
    return upper in _REFUSED or upper.startswith(_REFUSED_PREFIXES)


def is_address(name: str) -> bool:
    """Tell whether a name is one by which programs learn where to send what they are given."""
    return _ADDRESS.fullmatch(name.upper()) is not None


def check_keys(names: Iterable[str]) -> None:
    """Return if every key can be handed over as a variable of its name.

    Raises:
        Failure: one is refused (`variable-refused`), or cannot be the name of a variable.
    """
    for name in names:
        if not is_key_name(name):
            raise not_a_key_name(name)
        if not _VARIABLE.fullmatch(name):
            # Not shown: many a value that was typed in a name's place has the form of one.
            raise Failure(
                "a key's name cannot be the name of a variable: it holds a . or -",
                reason="no-variable",
                hint="store it under a name of letters, digits and _, or add --inject fd",
            )
        if is_refused(name):
            raise Failure(
                f"a key must not set {name}: it changes how programs are loaded, run or connected",
                reason="variable-refused",
                hint="store it under another name, or add --inject fd",
            )


def of_keys(names: Iterable[str], environ: Mapping[bytes, bytes]) -> tuple[list[str], list[str]]:
    """Part keys into those to ask for and those whose variables are set already."""
    wanted: list[str] = []
    kept: list[str] = []
    for name in names:
        (kept if name.encode() in environ else wanted).append(name)
    return wanted, kept


def check_values(values: Mapping[str, bytes]) -> None:
    """Return if every value can stand in a variable.

    Raises:
        Failure: one holds a zero byte (`no-variable`); it is not shown.
    """
    for name, value in values.items():
        if b"\0" in value:
            raise Failure(
                f"the value of {printable(name, 128)} holds a zero byte, which no variable can",
                reason="no-variable",
                hint="add --inject fd",
            )


def of_personality(personality: Mapping[str, Any], environ: Mapping[bytes, bytes]) -> Variables:
    """Make variables of a personality: its member `tone` becomes `AGENT_TONE`.

    Text, numbers and truth values are taken, what is nested is left out. Of two members that would
    be one variable, neither is set.
    """
    found: dict[str, bytes] = {}
    members: dict[str, list[str]] = {}
    left_out: list[str] = []
    for member, value in personality.items():
        name = PREFIX + member.upper()
        text = _text(value)
        if text is None or not _VARIABLE.fullmatch(member) or is_refused(name):
            left_out.append(member)
            continue
        members.setdefault(name, []).append(member)
        found[name] = text
    for name, sources in members.items():
        if len(sources) > 1:
            left_out += sources
            del found[name]
    kept = tuple(name for name in found if name.encode() in environ)
    values = {name: value for name, value in found.items() if name not in kept}
    return Variables(values, kept, tuple(left_out))


def _text(value: object) -> bytes | None:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int | float):
        return json.dumps(value).encode()
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        return value.encode()
    except UnicodeEncodeError:
        return None
