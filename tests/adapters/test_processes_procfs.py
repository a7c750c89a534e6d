"""Parsing /proc: names that pose as fields, cgroups that pose as units."""

import pytest

from backpackd.adapters.processes import procfs

STAT_AFTER_NAME = b"S 7 8 9 34816 8 4194304 " + b"0 " * 12 + b"4711 1000 10 0 94208 0 140736\n"


class TestStat:
    @pytest.mark.parametrize(
        "name",
        [
            b"plain",
            b"two words",
            b"",
            b")",
            b") R 1 1 1",
            b"a\nb) S 1 (c",
            b"(((",
            b"\xff\xfe) 0",
            b") R 1 1 1 0 -1 0\n",
        ],
    )
    def test_no_name_passes_for_the_fields_after_it(self, name: bytes) -> None:
        raw = procfs.split_stat(b"5 (" + name + b") " + STAT_AFTER_NAME, 5)
        assert procfs.parse_stat(raw) == (name, 7, 9, 34816, 4711, (94208, 140736))

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"\n",
            b"5 (sh\n",
            b"6 (sh) " + STAT_AFTER_NAME,
            b"55 (sh) " + STAT_AFTER_NAME,
            b"5 (sh) " + STAT_AFTER_NAME[:-1],
            b"5 (sh) S 7 8 9 34816\n",
            b"5 (sh) " + STAT_AFTER_NAME.replace(b"4711", b"soon"),
            b"5 (sh) " + STAT_AFTER_NAME.replace(b" 7 ", b" -1 "),
            b"5 (sh) " + STAT_AFTER_NAME.replace(b"7 8 9", b"7 8 -1"),
            b"5 (sh) " + STAT_AFTER_NAME.replace(b"4711", b"4_711"),
        ],
    )
    def test_a_line_of_another_form_is_no_process(self, line: bytes) -> None:
        with pytest.raises(ProcessLookupError):
            procfs.parse_stat(procfs.split_stat(line, 5))


class TestUnit:
    @pytest.mark.parametrize(
        ("path", "unit"),
        [
            ("/system.slice/cron.service", "cron.service"),
            ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/agent.service",
                "agent.service",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-a\\x2db@1.service",
                "app-a\\x2db@1.service",
            ),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", "init.scope"),
            ("/user.slice/user-1000.slice/user@1000.service", "user@1000.service"),
            ("/system.slice/_cgroup.service", "cgroup.service"),
            ("/", None),
            ("/system.slice", None),
            ("/container/agent.service", None),
            ("/../../system.slice/agent.service", None),
            ("/system.slice/agent.service (deleted)", None),
            ("/system.slice/agent.service/payload (deleted)", None),
            ("/system.slice/agent .service", None),
            ("/system.slice/\x1b[2Jagent.service", None),
        ],
    )
    def test_the_unit_is_the_one_that_the_manager_made(self, path: str, unit: str | None) -> None:
        assert procfs.parse_unit(f"0::{path}\n".encode()) == unit

    @pytest.mark.parametrize(
        "below",
        ["backup.service", "payload/backup.service", "user@1.service/backup.service"],
    )
    def test_a_unit_stays_itself_whatever_cgroups_it_makes(self, below: str) -> None:
        path = f"0::/system.slice/agent.service/{below}\n"
        assert procfs.parse_unit(path.encode()) == "agent.service"

    def test_a_users_unit_named_like_a_service_manager_is_a_unit_like_any_other(self) -> None:
        path = b"0::/user.slice/user@1000.service/user@1000.service/backup.service\n"
        assert procfs.parse_unit(path) == "user@1000.service"

    def test_only_the_unified_hierarchy_counts(self) -> None:
        text = b"1:name=systemd:/system.slice/backup.service\n0::/system.slice/agent.service\n"
        assert procfs.parse_unit(text) == "agent.service"
        assert procfs.parse_unit(b"1:name=0::/system.slice/backup.service\n") is None

    def test_two_unified_lines_are_none(self) -> None:
        text = b"0::/system.slice/a.service\n0::/system.slice/b.service\n"
        assert procfs.parse_unit(text) is None
