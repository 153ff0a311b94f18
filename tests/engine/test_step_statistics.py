"""What a training step costs, from times that are given."""

import logging
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage

from aiparsing_d2.engine import StepStatistics

BATCH = [{}] * 6


def watched(hook, times, first=0):
    """Give a hook the (time, data_time) of iterations; None is what has no time yet."""
    with EventStorage(first) as storage:
        hook.trainer = SimpleNamespace(storage=storage, latest_batch=BATCH)
        for time in times:
            storage.put_scalar("data_time", 9.0 if time is None else time[1])
            if time is not None:
                storage.put_scalar("time", time[0])
            hook.after_step()
            storage.step()
    return storage


def test_images_and_waiting_of_each_iteration():
    storage = watched(StepStatistics(), [None, None, (3.0, 0.6), (2.0, 1.0)])
    assert storage.history("images_per_second").values() == [(2.0, 2), (3.0, 3)]
    shares = [value for value, _ in storage.history("data_share").values()]
    assert shares == pytest.approx([0.2, 0.5])


def test_on_a_gpu_its_memory_too(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 3 * 2**20)
    storage = watched(StepStatistics(), [(1.0, 0.0)])
    assert storage.history("max_mem_mb").latest() == 3.0


@pytest.mark.fault("the data loader is slow")
def test_a_slow_loader_is_named_once_with_what_to_do(caplog):
    hook = StepStatistics(num_workers=2, pastes_people=True)
    # A loader that is as slow as is bearable, then one whose every tenth batch takes long.
    watched(hook, [None] * 2 + [(1.0, 0.25)] * 100)
    assert not caplog.records
    watched(hook, [(1.0, 0.0)] * 90)
    watched(hook, [(5.0, 4.0)] * 10 + [(1.0, 0.9)] * 200)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "The data loader is slow: of the last 100 iterations, 1.40 s each, 29% passed waiting for "
        "images. What helps: raise dataloader.train.num_workers (2) if cores are free; raise "
        "dataloader.train.mapper.copy_paste.cache_size; store images at about the size that is "
        "trained on"
    )


def test_a_loader_of_ones_own_gets_no_advice_on_keys_it_lacks(caplog):
    watched(StepStatistics(), [(1.0, 0.5)] * 100)
    assert "50% passed" in caplog.text and "dataloader" not in caplog.text
