"""The figures by name, in the sections of the report and in their order.

A config is checked against these names before heavy imports, so this module imports nothing. A new figure is one line
here and a function decorated with `base.figure`.
"""

SECTIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {  # anchor: title, what the section is for, its figures
    "data": ("The data", "What was counted, before any model.", ("counts", "groups")),
    "model": ("The model", "", ("model",)),
    "prior": (
        "The prior",
        "Prior predictive check and power-scaling: what the prior expects, what the data change, how much it matters.",
        ("prior_predictive", "prior_posterior", "sensitivity"),
    ),
    "posterior": (
        "The posterior",
        "The posterior of the rates, and whether the draws, in several chains, cover all of it.",
        ("forest", "rate_ratios", "rank", "trace", "energy"),
    ),
    "differences": (
        "Which groups differ",
        "The rates compared with each other and with what the model expects of a group, from their joint posterior.",
        ("contrasts", "funnel"),
    ),
    "checks": (
        "Predictive checks",
        "Posterior predictive checks: does the model suit the data? Tables simulated from the fitted model should look "
        "like the observed one, and rows should lie where the other rows predict them.",
        (
            "ecdf",
            "rootogram",
            "groups_predictive",
            "groups_rootogram",
            "statistics",
            "loo_pit",
            "calibration",
            "pareto_k",
            "leave_group_out",
        ),
    ),
    "new": ("A new group", "The prediction for a group that is not in the data.", ("new_group",)),
}
NAMES = tuple(name for _, _, names in SECTIONS.values() for name in names)
FAILED_CHECKS = "failed_checks"  # among chosen figures: those that show what failed
