"""``python -m genplug`` is the ``genplug`` command."""

import sys

from genplug.cli.main import main

sys.exit(main())
