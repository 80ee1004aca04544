"""Bad input over all commands: what each kind of it must lead to, and whether it does.

A kind is a command, a file or an argument of it, and a damage. Kinds are generated from tables,
run one by one in a process of their own, and judged by rules. ``python -m tests.faults`` prints
the table; the tests assert that the kinds that fail are those that ``known.txt`` lists.
"""
