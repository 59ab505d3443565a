"""The K-sized problems that combiners solve, exactly and with a certificate; float64, batched, on the device.

A Gramian enters as a `normalized.NormalizedGramian`. `simplex_problems` (min-norm point, conflict-averse dual) and
`dual_cone` stand on `active_set`, whose optimality conditions are in `optimality`; `power_fair` and `nash_imbalance`
are bargaining problems. `candidates` makes a single problem on a CPU quick. `conic` solves the published programs with
a general solver, for those who ask (`choice`) and for the tests.
"""
