"""runtime, libinfo and log: what the build says of itself, and the loggers it makes."""

import io
import logging
import os

import pytest

import mxrs as mx
from mxrs import libinfo, log, runtime


def test_features():
    features = runtime.Features()
    assert features is runtime.Features() and list(features)[0] == "CUDA"
    assert [f.name for f in runtime.feature_list()] == list(features)
    assert features.is_enabled("cuda") is features["CUDA"].enabled is False
    assert features.is_enabled("GPU") == (mx.num_gpus() > 0)
    assert features.is_enabled("LAPACK") == hasattr(mx.nd.linalg, "potrf")
    assert repr(features).startswith("[✖ CUDA, ") and repr(runtime.Feature("A", True)) == "✔ A"
    with pytest.raises(RuntimeError, match="Feature 'NOPE' is unknown, known features are"):
        features.is_enabled("NOPE")


def test_the_library():
    (path,) = libinfo.find_lib_path()
    assert os.path.isfile(path) and os.path.samefile(path, mx._core.__file__)
    assert libinfo.__version__ == mx.__version__
    for call in (lambda: libinfo.find_lib_path("nope"), libinfo.find_include_path, libinfo.find_conf_path):
        with pytest.raises(RuntimeError):
            call()


def test_a_logger_to_a_file(tmp_path):
    path = tmp_path / "l.log"
    logger = log.get_logger("mxrs_test_file", filename=str(path), filemode="w", level=log.INFO)
    logger.debug("hidden")
    logger.info("100 %% of %s", "it")
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("failed")
    text = path.read_text()
    assert "hidden" not in text and "] 100 % of it\n" in text and "ValueError: boom" in text
    assert text.startswith("I") and "\x1b" not in text
    again = log.get_logger("mxrs_test_file", level=log.ERROR)
    assert again is logger and logger.level == logging.INFO and len(logger.handlers) == 1


def test_a_logger_to_standard_error(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logger = log.get_logger("mxrs_test_stream")
    logger.warning("careful")
    logger.info("hidden")
    assert stream.getvalue().startswith("W") and stream.getvalue().endswith("] careful\n")
    assert log.get_logger() is logging.getLogger()
    with pytest.warns(DeprecationWarning, match="get_logger"):
        assert log.getLogger("mxrs_test_stream") is logger
