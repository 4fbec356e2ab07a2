"""What works without any extra."""

from foveal.training import callbacks


def test_a_run_has_no_logger_where_tensorboard_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "find_spec", lambda name: None)
    assert callbacks.loggers(tmp_path) == []
