// The first contents of a store: all that a shopper needs to place an order, and four demo products.
//
// The same in every store: what belongs to one tenant is in tenant.js. Medusa runs this once for each database,
// before the first start makes defaults of its own, and again after a run that did not end: every part looks before it
// makes, and a part whose making takes several steps looks again before each. One process for all of it, because loading
// the application costs more than the work.
const { ContainerRegistrationKeys, Modules, ProductStatus } = require("@medusajs/framework/utils")
const {
  createProductsWorkflow,
  createRegionsWorkflow,
  createSalesChannelsWorkflow,
  createShippingOptionsWorkflow,
  createShippingProfilesWorkflow,
  createStockLocationsWorkflow,
  createStoresWorkflow,
  deleteProductsWorkflow,
} = require("@medusajs/medusa/core-flows")

const SALES_CHANNEL = "Default Sales Channel" // the name Medusa itself looks for when it starts
const SHIPPING_PROFILE = "Default Shipping Profile" // as Medusa's own scripts name it
const CURRENCY = "eur"
const COUNTRIES = ["at", "be", "de", "es", "fr", "ie", "it", "nl", "pt"]
const REGION = "Europe"
const PAYMENT_PROVIDER = "pp_system_default" // takes no money: the merchant marks an order as paid
const FULFILLMENT_PROVIDER = "manual_manual"
const LOCATION = "Warehouse"
const FULFILLMENT_SET = "Delivery"
const SHIPPING_OPTION = { name: "Standard delivery", description: "Three to five days.", code: "standard", eur: 5 }

const PRODUCTS = [
  { handle: "harbour-mug", title: "Harbour Mug", description: "Stoneware, holds 350 ml.", option: "Glaze", values: ["Sand", "Slate"], eur: 14 },
  { handle: "field-notebook", title: "Field Notebook", description: "96 dotted pages, lies flat.", option: "Cover", values: ["Moss", "Rust"], eur: 9 },
  { handle: "linen-apron", title: "Linen Apron", description: "Washed linen with two pockets.", option: "Size", values: ["S", "L"], eur: 38 },
  { handle: "brass-lamp", title: "Brass Lamp", description: "A desk lamp with a weighted foot.", option: "Plug", values: ["EU", "UK"], eur: 89 },
]

module.exports.default = async function seedDemoStore({ container }) {
  const salesChannelId = await ensureSalesChannel(container)
  const regionId = await ensureRegion(container)
  await ensureStore(container, salesChannelId, regionId)
  const profileId = await ensureShippingProfile(container)
  await ensureDelivery(container, salesChannelId, profileId)
  await ensureProducts(container, salesChannelId, profileId)
}

async function ensureSalesChannel(container) {
  const [existing] = await container.resolve(Modules.SALES_CHANNEL).listSalesChannels({ name: SALES_CHANNEL })
  if (existing) return existing.id
  const { result } = await createSalesChannelsWorkflow(container).run({
    input: { salesChannelsData: [{ name: SALES_CHANNEL, description: "Everything this store sells" }] },
  })
  return result[0].id
}

async function ensureRegion(container) {
  const regions = container.resolve(Modules.REGION)
  let [region] = await regions.listRegions({ name: REGION }, { relations: ["countries"] })
  if (!region) {
    const { result } = await createRegionsWorkflow(container).run({
      input: { regions: [{ name: REGION, currency_code: CURRENCY, countries: COUNTRIES }] },
    })
    region = result[0]
  } else if (region.countries.length === 0) {
    await regions.updateRegions(region.id, { countries: COUNTRIES })
  }
  await ensureLink(container, {
    [Modules.REGION]: { region_id: region.id },
    [Modules.PAYMENT]: { payment_provider_id: PAYMENT_PROVIDER },
  })
  return region.id
}

// Medusa would make one at its first start, without the region: a cart that names none is then refused.
async function ensureStore(container, salesChannelId, regionId) {
  const stores = container.resolve(Modules.STORE)
  const [existing] = await stores.listStores({}, { take: 1 })
  if (existing) {
    if (!existing.default_region_id) await stores.updateStores(existing.id, { default_region_id: regionId })
    return
  }
  const supported = [{ currency_code: CURRENCY, is_default: true }]
  await createStoresWorkflow(container).run({
    input: {
      stores: [{ supported_currencies: supported, default_sales_channel_id: salesChannelId, default_region_id: regionId }],
    },
  })
}

async function ensureShippingProfile(container) {
  const [existing] = await container.resolve(Modules.FULFILLMENT).listShippingProfiles({ name: SHIPPING_PROFILE })
  if (existing) return existing.id
  const { result } = await createShippingProfilesWorkflow(container).run({
    input: { data: [{ name: SHIPPING_PROFILE, type: "default" }] },
  })
  return result[0].id
}

// From a sales channel to the price of a parcel: the channel sells what a location holds, the location delivers by a
// fulfillment set, whose zone has the shipping options of its countries.
async function ensureDelivery(container, salesChannelId, profileId) {
  const locationId = await ensureLocation(container)
  const set = await ensureFulfillmentSet(container)
  const location = { stock_location_id: locationId }
  await ensureLink(container, { [Modules.SALES_CHANNEL]: { sales_channel_id: salesChannelId }, [Modules.STOCK_LOCATION]: location })
  await ensureLink(container, { [Modules.STOCK_LOCATION]: location, [Modules.FULFILLMENT]: { fulfillment_set_id: set.id } })
  // Asked for by the shipping option: its provider must be the location's.
  await ensureLink(container, {
    [Modules.STOCK_LOCATION]: location,
    [Modules.FULFILLMENT]: { fulfillment_provider_id: FULFILLMENT_PROVIDER },
  })
  await ensureShippingOption(container, set.service_zones[0].id, profileId)
}

async function ensureLocation(container) {
  const [existing] = await container.resolve(Modules.STOCK_LOCATION).listStockLocations({ name: LOCATION })
  if (existing) return existing.id
  const { result } = await createStockLocationsWorkflow(container).run({
    input: { locations: [{ name: LOCATION, address: { address_1: "Harbour Street 1", city: "Hamburg", country_code: "de" } }] },
  })
  return result[0].id
}

async function ensureFulfillmentSet(container) {
  const fulfillment = container.resolve(Modules.FULFILLMENT)
  const [existing] = await fulfillment.listFulfillmentSets({ name: FULFILLMENT_SET }, { relations: ["service_zones"] })
  if (existing) return existing
  // With its zone in one transaction, so that neither is ever found alone.
  return fulfillment.createFulfillmentSets({
    name: FULFILLMENT_SET,
    type: "shipping",
    service_zones: [{ name: REGION, geo_zones: COUNTRIES.map((country) => ({ type: "country", country_code: country })) }],
  })
}

async function ensureShippingOption(container, zoneId, profileId) {
  const options = container.resolve(Modules.FULFILLMENT)
  const { name, description, code, eur } = SHIPPING_OPTION
  const found = await options.listShippingOptions({ name, service_zone: { id: zoneId } })
  const priced = await pricedOptions(container, found)
  const left = found.filter((option) => !priced.has(option.id))
  // Its price is made after it: one without belongs to a run that was killed, and could never be chosen.
  if (left.length > 0) await options.deleteShippingOptions(left.map((option) => option.id))
  if (priced.size > 0) return
  await createShippingOptionsWorkflow(container).run({
    input: [
      {
        name,
        service_zone_id: zoneId,
        shipping_profile_id: profileId,
        provider_id: FULFILLMENT_PROVIDER,
        price_type: "flat",
        type: { label: name, description, code },
        prices: [{ currency_code: CURRENCY, amount: eur }],
        rules: [
          { attribute: "enabled_in_store", value: "true", operator: "eq" },
          { attribute: "is_return", value: "false", operator: "eq" },
        ],
      },
    ],
  })
}

async function pricedOptions(container, options) {
  if (options.length === 0) return new Set()
  const { data } = await container.resolve(ContainerRegistrationKeys.QUERY).graph({
    entity: "shipping_option",
    fields: ["id", "prices.id"],
    filters: { id: options.map((option) => option.id) },
  })
  return new Set(data.filter((option) => option.prices && option.prices.length > 0).map((option) => option.id))
}

async function ensureProducts(container, salesChannelId, profileId) {
  const found = await foundProducts(container)
  const left = found.filter((product) => !isComplete(product))
  if (left.length > 0) await deleteProductsWorkflow(container).run({ input: { ids: left.map((product) => product.id) } })
  const known = new Set(found.filter(isComplete).map((product) => product.handle))
  const products = PRODUCTS.filter((product) => !known.has(product.handle)).map((product) => ({
    title: product.title,
    handle: product.handle,
    description: product.description,
    status: ProductStatus.PUBLISHED,
    shipping_profile_id: profileId, // without one, an order of it could not be delivered by any option
    sales_channels: [{ id: salesChannelId }],
    options: [{ title: product.option, values: product.values }],
    variants: product.values.map((value) => ({
      title: value,
      sku: `${product.handle}-${value}`.toUpperCase(),
      manage_inventory: false, // a demo needs no stock, so it never sells out
      options: { [product.option]: value },
      prices: [{ currency_code: CURRENCY, amount: product.eur }],
    })),
  }))
  if (products.length > 0) await createProductsWorkflow(container).run({ input: { products } })
}

async function foundProducts(container) {
  const { data } = await container.resolve(ContainerRegistrationKeys.QUERY).graph({
    entity: "product",
    fields: ["id", "handle", "sales_channels.id", "shipping_profile.id", "variants.id", "variants.prices.id"],
    filters: { handle: PRODUCTS.map((product) => product.handle) },
  })
  return data
}

// A product's prices and links are made after it: what a killed run left lacks some, and could not be sold.
function isComplete({ sales_channels: channels, shipping_profile: profile, variants }) {
  const isPriced = variants?.length > 0 && variants.every((variant) => variant.prices?.length > 0)
  return channels?.length > 0 && Boolean(profile) && isPriced
}

// Linking twice makes one row: its key is the two ids.
async function ensureLink(container, ends) {
  await container.resolve(ContainerRegistrationKeys.LINK).create(ends)
}
