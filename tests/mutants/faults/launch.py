"""Faults in the commands, their exit codes, and the simulated pod."""

from tests.mutants.fault import Fault

CLI, PODSIM = "launch/cli.py", "launch/podsim.py"
CLI_TESTS, PODSIM_TESTS = "tests/launch/cli_test.py", "tests/launch/podsim_test.py"
STOP, STOP_TESTS = "training/stop.py", "tests/training/stop_test.py"

FAULTS = (
    Fault(
        "CPUs with other instructions share compiled programs",
        "launch/platform.py",
        'line.startswith(("flags", "Features", "model name"))',
        'line.startswith("model name")',
        "tests/launch/platform_test.py"
        "::test_cpus_differ_by_what_they_execute_and_not_by_their_speed",
    ),
    Fault(
        "every error for the user has exit code 2",
        CLI,
        "return error.exit_code",
        "return 2",
        f"{CLI_TESTS}::test_an_error_for_the_user_is_one_line_and_an_exit_code",
    ),
    Fault(
        "an unknown command is a success",
        CLI,
        'hint}", file=sys.stderr)\n        return 2',
        'hint}", file=sys.stderr)\n        return 0',
        f"{CLI_TESTS}::test_an_unknown_command_suggests_the_nearest",
    ),
    Fault(
        "the traceback is shown always",
        CLI,
        'if "--debug" in argv:',
        "if True:",
        f"{CLI_TESTS}::test_an_error_for_the_user_is_one_line_and_an_exit_code",
    ),
    Fault(
        "a pod ends with the code of the last failure",
        PODSIM,
        "if code != 0 and first_failure == 0:",
        "if code != 0:",
        PODSIM_TESTS,
    ),
    Fault(
        "hosts that outlive a failure are left alone",
        PODSIM,
        "self.send(signal.SIGKILL)\n                deadline",
        "deadline",
        PODSIM_TESTS,
    ),
    Fault(
        "every host is the first",
        PODSIM,
        '"PODVISION_PROCESS_ID": str(index),',
        '"PODVISION_PROCESS_ID": "0",',
        f"{PODSIM_TESTS}::test_each_host_gets_its_place_and_no_proxy",
    ),
    Fault(
        "a Ctrl-C that arrives twice at once ends the command",
        STOP,
        "if now - self._last_interrupt >= ONE_KEYSTROKE_SECONDS:",
        "if now - self._last_interrupt >= 0:",
        f"{STOP_TESTS}::test_a_ctrl_c_that_arrives_twice_at_once_counts_as_one",
    ),
    Fault(
        "a Ctrl-C after SIGTERM ends the command at once",
        STOP,
        "if number == signal.SIGINT and self._is_second_interrupt():",
        "if self._is_second_interrupt():",
        f"{STOP_TESTS}::test_a_ctrl_c_after_sigterm_is_the_first_one",
    ),
)
