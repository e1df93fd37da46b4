"""What a study takes from training; the rest (steps, rates, warm-up, schedule) its sweep decides."""

TRAINING = (
    *("name", "global_batch_size", "min_learning_rate_ratio", "decay_steps", "weight_decay", "beta1", "beta2"),
    *("grad_clip", "non_finite", "precision", "seed", "eval_windows"),
)
DECIDED = {  # by what, of training's fields
    "steps": "sweep.tokens and sweep.search_tokens",
    "learning_rate": "sweep.learning_rates",
    "warmup_steps": "sweep.warmup_steps",
    "schedule": "the study: warm-up, stable, decay",
    "branch_from": "the study: every run begins at step 0",
}
