"""`python -m tests.nodes.guard TAG`: waits for the end of its input, then takes that network down."""

import signal
import sys

from tests.nodes.network import take_down


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it ends when its work is done
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    take_down(sys.argv[1])


if __name__ == "__main__":
    main()
