"""Use cases, called by the command line, the stages of a job and Python users.

Each is a function from names, folders and files to a typed answer; it prints nothing. Names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.lazy import lazily

if TYPE_CHECKING:
    from hwnas.workflows.adapting import adapt_supernet
    from hwnas.workflows.answers import (
        AdaptAnswer,
        ArchFile,
        DataAnswer,
        ElasticAnswer,
        EvaluatedSubnet,
        FinetuneAnswer,
        ImportAnswer,
        NetworkAnswer,
        ProfileAnswer,
        RelaxedAnswer,
        SearchAnswer,
        StudyAnswer,
        SubnetAnswer,
        TrainAnswer,
        ValidationAnswer,
    )
    from hwnas.workflows.checking import check_data
    from hwnas.workflows.deployed_answers import BenchAnswer, SweepAnswer
    from hwnas.workflows.deployment import bench, export, sweep
    from hwnas.workflows.finetuning import finetune
    from hwnas.workflows.hybrids import HybridAnswer, hybrid
    from hwnas.workflows.known_spaces import SpaceAnswer, SpaceList, list_spaces, show_space, space_file
    from hwnas.workflows.measuring import profile, profile_all, validate, validate_all
    from hwnas.workflows.model_answers import (
        KernelsAnswer,
        KernelsValidationAnswer,
        ModelBenchAnswer,
        ModelSweepAnswer,
        PredictAnswer,
    )
    from hwnas.workflows.models import bench_model, export_model, sweep_model
    from hwnas.workflows.predicting import predict, profile_kernels, validate_kernels
    from hwnas.workflows.relaxed import search_differentiably
    from hwnas.workflows.searching import search
    from hwnas.workflows.studies import study
    from hwnas.workflows.subnets import evaluate_subnets, extract_subnet, import_supernet
    from hwnas.workflows.tracing import elastic
    from hwnas.workflows.training import train
    from hwnas.workflows.transfer_answers import AgainstAnswer, NetworksAnswer, NextAnswer, TransferAnswer
    from hwnas.workflows.transferring import next_networks, profile_few_shot, transfer
    from hwnas.workflows.whole_networks import import_networks, validate_against

__all__ = [
    "AdaptAnswer",
    "AgainstAnswer",
    "ArchFile",
    "BenchAnswer",
    "DataAnswer",
    "ElasticAnswer",
    "EvaluatedSubnet",
    "FinetuneAnswer",
    "HybridAnswer",
    "ImportAnswer",
    "KernelsAnswer",
    "KernelsValidationAnswer",
    "ModelBenchAnswer",
    "ModelSweepAnswer",
    "NetworkAnswer",
    "NetworksAnswer",
    "NextAnswer",
    "PredictAnswer",
    "ProfileAnswer",
    "RelaxedAnswer",
    "SearchAnswer",
    "SpaceAnswer",
    "SpaceList",
    "StudyAnswer",
    "SubnetAnswer",
    "SweepAnswer",
    "TrainAnswer",
    "TransferAnswer",
    "ValidationAnswer",
    "adapt_supernet",
    "bench",
    "bench_model",
    "check_data",
    "elastic",
    "evaluate_subnets",
    "export",
    "export_model",
    "extract_subnet",
    "finetune",
    "hybrid",
    "import_networks",
    "import_supernet",
    "list_spaces",
    "next_networks",
    "predict",
    "profile",
    "profile_all",
    "profile_few_shot",
    "profile_kernels",
    "search",
    "search_differentiably",
    "show_space",
    "space_file",
    "study",
    "sweep",
    "sweep_model",
    "train",
    "transfer",
    "validate",
    "validate_against",
    "validate_all",
    "validate_kernels",
]

# Modules must not be named like functions: importing such a module would replace the function.
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "adapting": ("adapt_supernet",),
    "deployed_answers": ("BenchAnswer", "SweepAnswer"),
    "checking": ("check_data",),
    "deployment": ("bench", "export", "sweep"),
    "finetuning": ("finetune",),
    "hybrids": ("HybridAnswer", "hybrid"),
    "known_spaces": ("SpaceAnswer", "SpaceList", "list_spaces", "show_space", "space_file"),
    "measuring": ("profile", "profile_all", "validate", "validate_all"),
    "model_answers": (
        "KernelsAnswer",
        "KernelsValidationAnswer",
        "ModelBenchAnswer",
        "ModelSweepAnswer",
        "PredictAnswer",
    ),
    "models": ("bench_model", "export_model", "sweep_model"),
    "predicting": ("predict", "profile_kernels", "validate_kernels"),
    "relaxed": ("search_differentiably",),
    "searching": ("search",),
    "studies": ("study",),
    "subnets": ("evaluate_subnets", "extract_subnet", "import_supernet"),
    "tracing": ("elastic",),
    "training": ("train",),
    "transfer_answers": ("AgainstAnswer", "NetworksAnswer", "NextAnswer", "TransferAnswer"),
    "transferring": ("next_networks", "profile_few_shot", "transfer"),
    "whole_networks": ("import_networks", "validate_against"),
}
_NAMED = {name for names in _ELSEWHERE.values() for name in names}
__getattr__ = lazily(__name__, {**_ELSEWHERE, "answers": tuple(name for name in __all__ if name not in _NAMED)})


def __dir__() -> list[str]:
    return __all__
