"""A plan by size for tests: two variants, of which the small one keeps no promise to long prompts with short answers."""

from cluster.size_plan import ClassPlan, PlannedColumn, SizePlan, StepFigures

STEPS = StepFigures(base_seconds=0.02, request_seconds=0.001, context_seconds=1e-6, prompt_seconds=1e-4)
SMALL, BIG = (PlannedColumn(name=f"{name}|od", steps=STEPS, tpot_seconds=0.1) for name in ("small", "big"))
CHAT = ClassPlan(
    request_class="chat", ttft_seconds=2.0, tpot_seconds=0.1, shares=((1.0, 0.5, 0.0, 0.0), (0.0, 0.5, 1.0, 1.0)),
    able=((True, True, False, True), (True, True, True, True)),
)  # fmt: skip
PLAN = SizePlan(input_edges=(100, 1_000), output_edges=(10, 200), columns=(SMALL, BIG), classes=(CHAT,))
