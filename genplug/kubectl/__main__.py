"""``python -m genplug.kubectl`` is the ``kubectl-genplug`` command."""

import sys

from genplug.kubectl.main import main

sys.exit(main())
