from actors.progress_board import ProgressBoard, TrainProgress


def test_an_epoch_that_is_done_again_counts_once():
    board = ProgressBoard()
    board.post_metrics(10, {"warm/loss_total": 2.0})
    board.post_metrics(20, {"warm/loss_total": 1.5})
    board.post_metrics(20, {"warm/loss_total": 1.5})  # its worker died before the checkpoint was there
    assert board.record(0).metrics == {10: {"warm/loss_total": 2.0}, 20: {"warm/loss_total": 1.5}}
    assert list(board.record(10).metrics) == [20]
    assert board.record(20).metrics == {}


def test_the_last_progress_is_shown_and_parameters_add_up():
    board = ProgressBoard()
    assert board.read() == TrainProgress()
    board.post(TrainProgress(step=3, num_steps=9))
    board.post_params({"weights_origin": "random"})
    assert board.read().step == 3
    assert board.record(0).params == {"weights_origin": "random"}
