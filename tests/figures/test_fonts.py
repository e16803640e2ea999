"""Which labels the fonts can draw."""

from poolwise.figures.fonts import can_be_drawn, printable


def test_label_the_font_cannot_draw_is_replaced():
    assert not can_be_drawn("東京")
    assert printable("東京", otherwise="group 3") == "group 3"
    assert printable("Zürich, Süd", otherwise="group 3") == "Zürich, Süd"
