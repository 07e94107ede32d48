"""Arguments: which of a Trainer's settings say something. Owns the defaults, and the order of interest.

The defaults are those of transformers 5 and TRL 1, as their dataclasses state them; a test holds them
against what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping

DEFAULTS: dict[str, object] = {
    "learning_rate": 5e-5,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "per_device_eval_batch_size": 8,
    "optim": "adamw_torch_fused",
    "optim_args": None,
    "optim_target_modules": None,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": None,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "label_smoothing_factor": 0.0,
    "neftune_noise_alpha": None,
    "bf16": False,
    "fp16": False,
    "tf32": None,
    "bf16_full_eval": False,
    "fp16_full_eval": False,
    "gradient_checkpointing": None,
    "gradient_checkpointing_kwargs": None,
    "activation_checkpointing": None,
    "activation_checkpointing_kwargs": None,
    "seed": 42,
    "data_seed": None,
    "full_determinism": False,
    "eval_strategy": "no",
    "eval_steps": None,
    "eval_delay": 0,
    "eval_on_start": False,
    "eval_accumulation_steps": None,
    "eval_do_concat_batches": True,
    "eval_use_gather_object": False,
    "batch_eval_metrics": False,
    "prediction_loss_only": False,
    "include_for_metrics": [],
    "label_names": None,
    "load_best_model_at_end": False,
    "metric_for_best_model": None,
    "greater_is_better": None,
    "save_strategy": "steps",
    "save_steps": 500,
    "save_total_limit": None,
    "save_only_model": False,
    "logging_strategy": "steps",
    "logging_steps": 500,
    "logging_first_step": False,
    "logging_nan_inf_filter": True,
    "include_num_input_tokens_seen": "no",
    "average_tokens_across_devices": True,
    "auto_find_batch_size": False,
    "remove_unused_columns": True,
    "train_sampling_strategy": "random",
    "length_column_name": "length",
    "dataloader_drop_last": False,
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": True,
    "dataloader_persistent_workers": False,
    "dataloader_prefetch_factor": None,
    "dataloader_in_order": True,
    "torch_compile": False,
    "torch_compile_backend": None,
    "torch_compile_mode": None,
    "torch_empty_cache_steps": None,
    "use_liger_kernel": False,
    "liger_kernel_config": None,
    "use_cache": False,
    "use_cpu": False,
    "fsdp": None,
    "fsdp_config": None,
    "deepspeed": None,
    "accelerator_config": None,
    "parallelism_config": None,
    "ignore_data_skip": False,
    "skip_memory_metrics": True,
}
"""What TrainingArguments has where nobody says otherwise, in the order of interest."""
OF_SFT: dict[str, object] = {
    "max_length": 1024,
    "packing": False,
    "packing_strategy": "bfd",
    "eval_packing": None,
    "padding_free": False,
    "pad_to_multiple_of": "auto",
    "completion_only_loss": None,
    "assistant_only_loss": False,
    "loss_type": "nll",
    "dataset_text_field": "text",
    "dataset_kwargs": None,
    "truncation_mode": "keep_start",
    "shuffle_dataset": False,
    "eos_token": None,
    "pad_token": None,
    "chat_template_path": None,
    "activation_offloading": False,
    "router_aux_loss_coef": None,
    "dataset_num_proc": None,
    "model_init_kwargs": None,
    "trust_remote_code": False,
}
"""What SFTConfig has beyond that."""
SFT_INSTEAD: dict[str, object] = {"learning_rate": 2e-5, "logging_steps": 10, "gradient_checkpointing": True}
"""Where SFTConfig's default is another."""
HOUSEKEEPING = frozenset(
    [
        "output_dir",
        "overwrite_output_dir",
        "run_name",
        "logging_dir",
        "report_to",
        "project",
        "push_to_hub",
        "hub_token",
        "hub_private_repo",
        "hub_model_id",
        "hub_strategy",
        "hub_always_push",
        "hub_revision",
        "trackio_space_id",
        "trackio_bucket_id",
        "trackio_static_space_id",
        "resume_from_checkpoint",
        "restore_callback_states_from_checkpoint",
        "local_rank",
        "do_train",
        "do_eval",
        "do_predict",
        "disable_tqdm",
        "debug",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "save_on_each_node",
        "enable_jit_checkpoint",
        "ddp_find_unused_parameters",
        "ddp_bucket_cap_mb",
        "ddp_broadcast_buffers",
        "ddp_static_graph",
        "ddp_backend",
        "ddp_timeout",
        "dataloader_multiprocessing_context",
    ]
)
"""Where a run writes, whom it tells, and where it ran: nothing of what it learns."""
_RESOLVED_ACCELERATOR = {
    "split_batches": False,
    "dispatch_batches": None,
    "even_batches": True,
    "use_seedable_sampler": True,
    "non_blocking": False,
    "gradient_accumulation_kwargs": None,
}

OTHER_CLASSES = {
    "num_generations": "GRPOTrainer",
    "precompute_ref_log_probs": "DPOTrainer",
    "center_rewards_coefficient": "RewardTrainer",
    "predict_with_generate": "Seq2SeqTrainer",
}
"""By an argument that only its config has, the trainer."""


def trainer_class(arguments: Mapping[str, object], said: object = None) -> str:
    """The trainer's class: as recorded, else as its arguments tell it; "Trainer" where they tell nothing."""
    if isinstance(said, str) and said.rpartition(".")[2].isidentifier():
        return said.rpartition(".")[2]
    for name, found in OTHER_CLASSES.items():
        if name in arguments:
            return found
    return "SFTTrainer" if "dataset_text_field" in arguments else "Trainer"


def telling(arguments: Mapping[str, object], trainer: str) -> dict[str, object]:
    """Those that differ from the defaults of the trainer's config, in order of interest.

    A setting of which no default is known says something where it is set.
    """
    known: dict[str, object] = dict(DEFAULTS)
    if trainer == "SFTTrainer":
        # None stands for a choice there that is made as the config is: what came of it is said.
        known = {k: v for k, v in {**known, **OF_SFT, **SFT_INSTEAD}.items() if k != "bf16"}
    elif trainer != "Trainer":
        # TRL's configs have defaults of their own for a few of these.
        known = {k: v for k, v in known.items() if k not in ("bf16", *SFT_INSTEAD)}
    order = {name: place for place, name in enumerate([*DEFAULTS, *OF_SFT])}
    found = {
        name: value
        for name, value in arguments.items()
        if name not in HOUSEKEEPING and not _same(name, value, known)
    }
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _same(name: str, value: object, known: Mapping[str, object]) -> bool:
    if name not in known:
        return value is None or value == [] or value == {}
    default = known[name]
    if name == "accelerator_config" and value == _RESOLVED_ACCELERATOR:
        return True
    # A config resolves what nobody said: None becomes False, or nothing in a list.
    return value == default or (default is None and (value is False or value == [] or value == {}))
