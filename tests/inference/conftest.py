import pytest
import tiny_predictor

from aiparsing_d2.inference import ParsingPredictor


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    return tiny_predictor.save_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.pth")


@pytest.fixture(scope="session")
def predictor(tiny_weights):
    """Keeps everybody."""
    config = tiny_predictor.tiny_config()
    return ParsingPredictor(config, tiny_weights, device="cpu", score_threshold=0.0)
