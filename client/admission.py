"""What every request must pass before the site works on it, by what the request is.

What takes more than the request (its weights, the site's stays, the ledger) is checked where that is at hand.
"""

from __future__ import annotations

from client.policy import check_left_out, check_masked, check_noise, check_study, check_task, check_told
from client.run_kind import demand_no_noise, demand_noisy_figures, demand_same_kind
from client.site import SiteConfig
from hymate.joining_protocol import DescribeRequest, PrepareRequest, StatisticsRequest
from hymate.protocol import AloneRequest, FinetuneRequest, PretrainRequest
from hymate.scoring_protocol import CompareRequest, EvaluateRequest, RecalibrateRequest
from hymate.secure_protocol import KeysRequest, SharesRequest, UnmaskRequest

OfData = DescribeRequest | StatisticsRequest | PrepareRequest
OfModels = PretrainRequest | FinetuneRequest | AloneRequest | EvaluateRequest | CompareRequest
OfSums = KeysRequest | SharesRequest | UnmaskRequest
Request = OfData | OfModels | OfSums


def admit(site: SiteConfig, request: Request) -> None:
    """Raise `InputFault` where the site's policy, or how the run began, allows no answer.

    The first round of a run settles how it began: the site writes that down (`client.run_kind`).
    """
    if not isinstance(request, OfData):
        check_study(site, request.study, request.run)
    elif request.noisy is not None:
        check_study(site, request.noisy.study)
    if isinstance(request, OfSums):
        return
    check_task(site, request.task)
    told_with_noise = _told_with_noise(request)
    check_told(site, told_with_noise)
    match request:
        case PretrainRequest() | FinetuneRequest():
            check_left_out(site, request.left_out)
            check_noise(site, noisy=request.privacy.mode == "dp-sgd")
            check_masked(site, masked=request.secure is not None)
            demand_same_kind(site, request)
        case AloneRequest():
            check_noise(site, noisy=False)  # its figures are of a model trained without
            demand_no_noise(site, request)
        case EvaluateRequest() | CompareRequest():
            demand_noisy_figures(site, request, told_with_noise)
    if isinstance(request, EvaluateRequest) and request.keep is not None:
        check_study(site, request.study, request.keep.run)


def _told_with_noise(request: OfData | OfModels) -> bool:
    """Whether what the answer says of the site's data is under noise."""
    match request:
        case DescribeRequest() | StatisticsRequest() | PrepareRequest():
            return request.noisy is not None
        case PretrainRequest() | FinetuneRequest():
            return request.privacy.dp_statistics
        case RecalibrateRequest():  # no noise covers its sums, whatever it inherits
            return False
        case EvaluateRequest():
            return request.noise_multiplier is not None
        case AloneRequest() | CompareRequest():
            return False
