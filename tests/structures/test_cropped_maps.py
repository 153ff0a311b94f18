import numpy as np

from aiparsing_d2.structures import CroppedMaps


def test_tightened_windows_hold_all_that_is_not_zero():
    crop = np.zeros((6, 8), dtype=np.uint8)
    crop[2, 3], crop[4, 5] = 7, 255
    empty = np.zeros((2, 2), dtype=np.uint8)
    loose = CroppedMaps([crop, empty], np.array([[10, 4, 18, 10], [1, 1, 3, 3]]))
    tight = loose.tightened()
    np.testing.assert_array_equal(tight.windows, [[13, 6, 16, 9], [0, 0, 0, 0]])
    assert [part_map.shape for part_map in tight.maps] == [(3, 3), (0, 0)]
    np.testing.assert_array_equal(tight.to_full((12, 20)), loose.to_full((12, 20)))


def test_full_maps_are_zero_outside_the_windows():
    full = CroppedMaps([np.array([[1, 2]], dtype=np.uint8)], np.array([[1, 0, 3, 1]])).to_full(
        (2, 4)
    )
    np.testing.assert_array_equal(full, [[[0, 1, 2, 0], [0, 0, 0, 0]]])
