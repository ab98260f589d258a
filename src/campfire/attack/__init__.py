"""Attacks: small changes to images that mislead a network (floor 1).

`campfire attack` and `campfire.training.robustness` run them on trained networks; their results are described in
`campfire.attack.record`.
"""
