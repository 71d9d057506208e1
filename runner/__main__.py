"""`python -m runner` is the command `pixxel-runner`."""

import sys

from runner.cli.main import main

sys.exit(main())
