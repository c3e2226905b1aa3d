"""What two-stage detectors share (Ren et al., NIPS 2015; Lin et al., CVPR 2017; He et al., ICCV 2017).

Boxes are x1, y1, x2, y2 in pixels of the network's input, pixel edges, so that a whole picture is (0, 0, W, H). In evaluation
mode every shape is fixed by the input's: rows that are nothing are marked, never removed.
"""
