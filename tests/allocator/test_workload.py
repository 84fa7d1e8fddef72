import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from allocator.errors import UsageError
from allocator.tasks import BUILT_IN, task_named
from allocator.tasks.batches import count, digests, take, twice
from allocator.tasks.causal_lm import CausalLm
from allocator.tasks.classification import Classification
from allocator.tasks.embedding import Embedding
from allocator.tasks.guard import untouched
from allocator.tasks.measurement import evaluate, measure, ranks, ratio
from allocator.tasks.positions import cross_entropy, divergence
from allocator.tasks.protocol import PairTask, Task
from allocator.workload import Workload


def images(start, rows):
    return torch.arange(start, start + rows * 3, dtype=torch.float32).view(rows, 3), torch.zeros(rows, dtype=torch.long)


def make(calibration, evaluation=None, task="classification", net=None):
    return Workload(net or nn.Linear(3, 2), calibration, evaluation or [images(1000, 2)], task)


def test_digests_do_not_depend_on_batching_and_see_every_byte():
    whole = make([images(0, 4)]).digests()
    x, y = images(0, 4)
    assert make([(x[:1], y[:1]), (x[1:], y[1:])]).digests() == whole
    assert len(set(whole)) == 4
    x[2, 1] += 1e-6
    changed = make([(x, y)]).digests()
    assert [a == b for a, b in zip(whole, changed, strict=True)] == [True, True, False, True]
    assert digests((x, y + 1))[0] != changed[0]
    assert digests({"a": x})[0] != digests({"b": x})[0]


def test_check_returns_the_digests_of_both_parts():
    workload = make([images(0, 3), images(100, 2)])
    assert workload.check() == {"calibration": workload.digests(), "evaluation": workload.digests("evaluation")}


def test_shared_samples_are_counted():
    with pytest.raises(UsageError, match="2 of 3 evaluation samples of workload are also calibration samples"):
        make([images(0, 4)], [images(6, 3)]).check()


class Shuffled:
    def __init__(self):
        self.reads = 0

    def __iter__(self):
        self.reads += 1
        yield images(50 * self.reads, 3)


def test_data_that_changes_when_read_again_is_refused():
    with pytest.raises(UsageError, match="not the same when read twice: 3 of 3 samples differ"):
        make(Shuffled()).check()


def test_data_that_can_be_read_once_is_refused():
    with pytest.raises(UsageError, match=r"calibration data of workload is an iterator \(generator\)"):
        make(images(0, n) for n in (1, 2))
    with pytest.raises(UsageError, match=r"evaluation data .* is empty"):
        make([images(0, 1)], Empty()).check()


class Empty:
    def __iter__(self):
        return iter(())


def test_task_names():
    for name in BUILT_IN:
        task = task_named(name)
        assert isinstance(task, Task)
        assert task.name == name
        assert isinstance(task, PairTask) == (name == "embedding")
    with pytest.raises(UsageError, match="no task is named 'regression': take one of classification"):
        make([images(0, 1)], task="regression")


def test_importing_a_workload_does_not_import_torch():
    code = "import sys, allocator.workload, allocator.space, allocator.tasks, allocator.profiling, allocator.demos\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_batches_are_trees_of_tensors():
    batch = {"a": torch.zeros(3, 2), "b": [torch.ones(3), (torch.zeros(3, 1),)]}
    assert count(batch) == 3
    assert count(take(batch, 1, 3)) == 2
    assert count(twice(batch)) == 6
    assert twice({"a": [torch.tensor([1, 2])]})["a"][0].tolist() == [1, 2, 1, 2]
    with pytest.raises(UsageError, match="holds a str at /1"):
        count((torch.zeros(2), "x"))
    with pytest.raises(UsageError, match="same number of samples"):
        count((torch.zeros(2), torch.zeros(3)))


class Untidy(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        self.norm.running_mean = self.norm.running_mean + 1
        torch.rand(1)
        return self.drop(self.norm(x))


def test_untouched_undoes_everything_but_weights():
    net = Untidy().train()
    net.drop.eval()
    mean, state = net.norm.running_mean, torch.get_rng_state()
    with untouched(net):
        assert not net.norm.training
        net(torch.randn(4, 3)).sum().backward()
        net.norm.weight.requires_grad_(False)
    assert net.norm.running_mean is mean
    assert not mean.any()
    assert net.seen == 0
    assert [m.training for m in (net, net.norm, net.drop)] == [True, True, False]
    assert net.norm.weight.requires_grad
    assert net.norm.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_ratio_is_the_mean_with_its_standard_error_when_counts_are_equal():
    values = torch.tensor([1.0, 4.0, 2.0, 9.0], dtype=torch.float64)
    found = ratio(3 * values, torch.full((4,), 3.0, dtype=torch.float64))
    assert found.value == pytest.approx(4)
    assert found.stderr == pytest.approx(stats.sem(values.numpy()))
    assert math.isnan(ratio(values[:1], values[:1]).stderr)


def test_ratio_standard_error_against_resampling():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 30, 400).astype(float)
    sums = counts * 2 + rng.normal(size=400) * np.sqrt(counts)
    found = ratio(torch.tensor(sums), torch.tensor(counts))
    draws = rng.integers(400, size=(2000, 400))
    assert found.stderr == pytest.approx((sums[draws].sum(1) / counts[draws].sum(1)).std(), rel=0.1)


def test_ranks_share_ties():
    values = torch.tensor([3.0, 1.0, 3.0, 2.0, 3.0])
    assert (ranks(values) + 1).tolist() == stats.rankdata(values.numpy()).tolist()


def test_divergence_and_cross_entropy_in_double_precision():
    torch.manual_seed(0)
    a, b = torch.randn(5, 3, 7), torch.randn(5, 3, 7)
    p, q = a.double().softmax(-1).numpy(), b.double().softmax(-1).numpy()
    np.testing.assert_allclose(divergence(a, b), (p * np.log(p / q)).sum(-1), rtol=1e-12)
    targets = torch.randint(7, (5, 3))
    wanted = -np.log(np.take_along_axis(q, targets.numpy()[..., None], -1))[..., 0]
    np.testing.assert_allclose(cross_entropy(b, targets), wanted, rtol=1e-12)


def test_classification_metrics_against_plain_arithmetic():
    torch.manual_seed(0)
    x, y = torch.randn(50, 3), torch.randint(2, (50,))
    workload = make([images(0, 2)], [(x[:20], y[:20]), {"labels": y[20:], "input": x[20:]}])
    other = nn.Linear(3, 2)
    found = evaluate(workload, reference=other)
    z, base = workload.model(x), other(x)
    right = (z.argmax(1) == y).double().numpy()
    assert found["accuracy"]["value"] == pytest.approx(right.mean())
    assert found["accuracy"]["stderr"] == pytest.approx(stats.sem(right))
    assert found["loss"]["value"] == pytest.approx(nn.functional.cross_entropy(z, y).item(), rel=1e-6)
    assert found["kl"]["value"] == pytest.approx(
        nn.functional.kl_div(z.log_softmax(1), base.log_softmax(1), log_target=True, reduction="batchmean").item(),
        rel=1e-4,
    )
    assert found["agreement"]["value"] == pytest.approx((z.argmax(1) == base.argmax(1)).double().mean().item())
    assert Classification().loss(z, (x, y)).item() == pytest.approx(found["loss"]["value"])


class Bigram(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 5)

    def forward(self, input_ids, attention_mask=None):
        return self.table(input_ids)


def test_language_model_counts_only_known_next_tokens():
    torch.manual_seed(0)
    ids = torch.randint(5, (3, 6))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [0] + [1] * 5])
    batch = {"input_ids": ids, "attention_mask": mask}
    net = Bigram()
    losses = [
        nn.functional.cross_entropy(net(ids)[n, t], ids[n, t + 1]).item()
        for n in range(3)
        for t in range(5)
        if mask[n, t] and mask[n, t + 1]
    ]
    assert len(losses) == 5 + 3 + 4
    task = CausalLm()
    assert task.loss(task.logits(net, batch), batch).item() == pytest.approx(np.mean(losses), rel=1e-6)
    found = measure(make([ids + 5], [batch], "causal_lm", net))
    assert found["perplexity"].value == pytest.approx(math.exp(np.mean(losses)), rel=1e-6)
    assert found["perplexity"].stderr == pytest.approx(found["perplexity"].value * found["loss"].stderr)
    assert task.mask(ids) is None


def test_embedding_logits_and_correlations():
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    batches = [(torch.randn(6, 2, 4), torch.rand(6)), ({"input": torch.randn(5, 2, 4)}, torch.rand(5))]
    task, predicted, given = Embedding(), [], []
    for batch in batches:
        x = batch[0]["input"] if isinstance(batch[0], dict) else batch[0]
        cosine = nn.functional.cosine_similarity(net(x[:, None, 0]), net(x[None, :, 1]), dim=-1)
        z = task.logits(net, batch)
        assert z.shape == (1, len(x), len(x))
        torch.testing.assert_close(z[0], 20 * cosine)
        predicted += cosine.diagonal().tolist()
        given += batch[1].tolist()
        own = nn.functional.cross_entropy(z[0], torch.arange(len(x)))
        assert task.loss(z, batch).item() == pytest.approx(own.item(), rel=1e-6)
    found = measure(make([(torch.randn(2, 2, 4), torch.rand(2))], batches, "embedding", net))
    assert found["spearman"].value == pytest.approx(stats.spearmanr(predicted, given)[0])
    assert found["pearson"].value == pytest.approx(stats.pearsonr(predicted, given)[0])


def test_wrong_batches_and_models_say_what_is_wanted():
    with pytest.raises(UsageError, match=r"give \(inputs, targets\)"):
        Classification().logits(nn.Linear(3, 2), torch.zeros(2, 3))
    with pytest.raises(UsageError, match=r"returned tuple, neither a tensor"):
        Classification().logits(nn.LSTM(3, 2), images(0, 2))
    with pytest.raises(UsageError, match="an embedding model gives a tensor"):
        Embedding().logits(nn.Identity(), (torch.zeros(2, 2, 3, 4), torch.zeros(2)))


def test_a_single_sample_has_no_standard_error():
    found = evaluate(make([images(0, 2)], [images(10, 1)]))
    assert found["loss"]["stderr"] is None
