//! Which filter stands where: an instance a disk and layer, or one that all disks share.

use crate::filters::{Auxiliary, Filter};

/// A filter's place in the chain of one disk.
pub enum Place {
    Own(Box<dyn Filter>),
    /// The first disk's instance of this layer: its scope is the group.
    Shared,
}

/// The filters of one worker's disks. Every disk has the same number of layers.
pub struct Chains {
    filters: Vec<Instance>,
    /// By disk, then by layer: index of the instance.
    at: Vec<u32>,
    layers: usize,
}

pub(crate) struct Instance {
    pub filter: Box<dyn Filter>,
    /// Where it was built: what it does of its own accord is booked to this disk.
    pub disk: u16,
    pub layer: u8,
}

impl Chains {
    #[must_use]
    pub const fn new(layers: usize) -> Self {
        Self { filters: Vec::new(), at: Vec::new(), layers }
    }

    /// One disk with a filter of its own in every layer.
    #[must_use]
    pub fn single(filters: Vec<Box<dyn Filter>>) -> Self {
        let mut chains = Self::new(filters.len());
        chains.add_disk(filters.into_iter().map(Place::Own).collect());
        chains
    }

    /// The next disk, `layers` places from the top.
    pub fn add_disk(&mut self, places: Vec<Place>) {
        debug_assert_eq!(places.len(), self.layers);
        let disk = self.disks() as u16;
        for (layer, place) in places.into_iter().enumerate() {
            let index = match place {
                Place::Shared => self.at[layer],
                Place::Own(filter) => {
                    self.filters.push(Instance { filter, disk, layer: layer as u8 });
                    self.filters.len() as u32 - 1
                }
            };
            self.at.push(index);
        }
    }

    #[must_use]
    pub const fn layers(&self) -> usize {
        self.layers
    }

    #[must_use]
    pub fn disks(&self) -> usize {
        // With no layers the chains are empty, whatever the number of disks.
        self.at.len().checked_div(self.layers).unwrap_or_default()
    }

    /// Which instance stands there.
    #[inline]
    pub(crate) fn index(&self, disk: u16, layer: u8) -> usize {
        self.at[disk as usize * self.layers + layer as usize] as usize
    }

    #[inline]
    pub(crate) fn get(&mut self, disk: usize, layer: usize) -> &mut dyn Filter {
        &mut *self.filters[self.at[disk * self.layers + layer] as usize].filter
    }

    /// Every instance once, in the order in which they were built.
    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Instance> {
        self.filters.iter_mut()
    }

    pub(crate) fn instance_mut(&mut self, index: usize) -> &mut Instance {
        &mut self.filters[index]
    }

    pub(crate) fn instances(&self) -> &[Instance] {
        &self.filters
    }

    /// The auxiliary devices of all instances, in the order of their numbers.
    #[must_use]
    pub fn auxiliaries(&self) -> Vec<Auxiliary> {
        self.filters.iter().flat_map(|instance| instance.filter.auxiliaries()).collect()
    }

    /// By disk, then by layer: the backend's number of the first auxiliary device of the filter
    /// there. They follow the worker's disks, in the order of the instances.
    pub(crate) fn auxiliary_numbers(&self, disks: usize) -> Vec<u16> {
        let mut next = disks as u16;
        let firsts: Vec<u16> = self
            .filters
            .iter()
            .map(|instance| {
                let first = next;
                next += instance.filter.auxiliaries().len() as u16;
                first
            })
            .collect();
        self.at.iter().map(|index| firsts[*index as usize]).collect()
    }
}
