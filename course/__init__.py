"""The book's machinery: the worlds, the exact answers, the kit, and one room for each chapter.

`course` imports `helpers`, never the reverse. Within it imports go one way as well:
`worlds` (what is written about) → `exact` (every text listed, every answer known) →
`kit` (what figures, widgets and checkers share) → the rooms `chNN_…`; no room imports another.
A room holds a chapter's text `NN_….md`, its `figures`, `widgets` and `checks`.
"""
