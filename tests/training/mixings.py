"""Every kind of mixture, by a name for people."""

from fedloom.aggregation.world import Mixing

MIXINGS = {
    "learned": Mixing(),
    "learned, mostly own": Mixing(share=0.9),
    "static": Mixing("static", 0.3),
    "sum": Mixing("sum"),
    "trained rest": Mixing(trains_rest=True),
    "trained rest, static": Mixing("static", 0.3, trains_rest=True),
    "whole": Mixing(share=0.8, whole=True),
    "whole, static": Mixing("static", 0.3, whole=True),
}
