"""Which programs start what people ask for, and so are not agents themselves.

A shell that leads the session of a terminal starts one command after another. An ssh server, a
terminal multiplexer or a desktop starts everything that a person opens. Consent to one of these
would be consent to every program that it starts next.

The names decide where the root of a tree is. A process can choose its own name: it can run a copy
of a program, or change what it calls itself. So a name may only make a tree smaller, or leave it as
the kernel's facts make it. An agent that calls itself `bash` is asked about more often.

The name of a hook of a shell (`direnv`) words a hint and nothing else: whoever types what it says
sees that it is about the shell.

One name does the opposite: a first process of the daemon's pid namespace that is no init system is
the agent of its container. Who can choose that program has made the container.
"""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SHELLS = _names(
    "ash bash busybox csh dash elvish es fish ksh ksh93 loksh mksh nu oksh osh pdksh pwsh rbash rc "
    "rzsh sh tcsh xonsh yash ysh zsh"
)
"""Programs that read commands and run them."""

STARTERS = _names(
    # Logins, and programs that run a command as another user or on its own terminal.
    "agetty doas dropbear getty login machinectl mosh-server runuser script sshd sshd-session su "
    "sudo telnetd ttyd "
    # Terminal multiplexers.
    "abduco byobu dtach screen SCREEN tmux zellij "
    # Programs between a service manager and the first process of a container.
    "conmon containerd-shim containerd-shim-runc-v2 "
    # Desktops, their panels and their menus.
    "Hyprland awesome bspwm budgie-panel budgie-wm cinnamon cinnamon-session dmenu fuzzel "
    "gnome-session-binary gnome-shell herbstluftwm i3 krunner kwin_wayland kwin_x11 labwc lxpanel "
    "lxqt-panel lxqt-runner lxqt-session lxsession mate-panel mate-session niri openbox "
    "plasmashell qtile river rofi sway wofi xfce4-appfinder xfce4-panel xfce4-session "
    "xfdesktop"
)
"""Programs that start what a person opens. They may be at the top, but they are never the root."""

HOOKS = _names("asdf direnv lorri mise rtx shadowenv")
"""Programs that a shell runs before its prompt or on entering a directory, for its environment.

They end in a moment, with all that they start. Some of them also start what goes on (`mise run`):
there, too, the shell is what lives on.
"""

INITS = _names(
    "catatonit docker-init dumb-init init launchd openrc-init podman-init runit s6-svscan systemd "
    "tini tini-static"
)
"""Programs that, as the first process, start other programs and collect orphans."""

_NAME_BYTES = 15
"""How many bytes of a name the kernel keeps (proc_pid_comm(5))."""


def is_one_of(programs: frozenset[str], executable: str | None, name: str) -> bool:
    """Return whether a process runs one of these programs, or claims to.

    Args:
        programs: file names.
        executable: the path of the program that it runs; None if the kernel does not tell.
        name: what it calls itself (a claim).
    """
    told = name.partition(":")[0].removeprefix("-")
    if told in programs or (
        len(told) == _NAME_BYTES and any(each.startswith(told) for each in programs)
    ):
        return True
    return executable is not None and executable.rpartition("/")[2] in programs


def is_program(executable: str | None, name: str) -> bool:
    """Return whether a process is known to be neither a shell nor a starter.

    A process that hides its program may be anything, so the answer for it is False.
    """
    return executable is not None and not is_one_of(SHELLS | STARTERS, executable, name)


def is_manager(pid: int, executable: str | None, name: str) -> bool:
    """Return whether a process is the first one of the daemon's pid namespace, and an init system.

    A process that hides its program counts as one. A shell does, too: the entry point of a
    container is often a script that starts several programs.
    """
    if pid != 1:
        return False
    return is_one_of(INITS, executable, name) or not is_program(executable, name)
