"""An answer that stops coming is noticed; one that takes long to send is not."""

from __future__ import annotations

import threading

from client.handing_over import HandingOver


def test_it_is_noticed_where_no_part_comes_any_more() -> None:
    noticed = threading.Event()
    over = HandingOver(noticed.set, 0.05)
    assert over.around(lambda part: part * 2)(21) == 42
    assert noticed.wait(10)


def test_sending_may_take_as_long_as_it_takes() -> None:
    noticed = threading.Event()
    over = HandingOver(noticed.set, 0.2)
    over.waits()

    def send() -> bool:
        return noticed.wait(0.6)  # three times as long as it may wait for a part

    assert over.around(send)() is False
    over.over()
    assert not noticed.wait(0.6)
