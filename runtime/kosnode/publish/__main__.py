"""`python -m kosnode.publish …`: the publisher's verbs without the rest of kosctl."""

from .cli import main

raise SystemExit(main())
